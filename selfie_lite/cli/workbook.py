"""selfie-lite walkthrough | sweep: run notebooks, and training, for one or for many settings."""

import os
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import click

from selfie_lite.cli.base import Folder, Number, Text, app, err, print_table, say, warn
from selfie_lite.workbook.notebook import Outcome
from selfie_lite.workbook.sweep import BACKENDS, combinations, name_of, read_grid, run_cells, run_notebooks


@app.command()
@click.option(
    "--only", type=Text(), multiple=True, metavar="NN", help="Run just the notebooks that begin so, 03 say; repeatable."
)
@click.option(
    "-p", "--parameter", "parameters", type=(str, str), multiple=True, metavar="NAME VALUE",
    help="Set a parameter of the notebooks, for instance -p steps 200; repeatable.",
)  # fmt: skip
@click.option("--out", "folder", type=Folder(), default=Path("runs/walkthrough"), help="Where everything is written.")
def walkthrough(only, parameters, folder):
    """Run the notebooks of nbs/ in order; keep them, with their outputs, as notebooks and as web pages."""
    from selfie_lite.workbook import walkthrough as runner
    from selfie_lite.workbook.parameters import read_parameters

    notebooks = runner.find_notebooks(list(only))
    values = read_parameters(list(parameters), notebooks)
    outcomes = runner.run_walkthrough(notebooks, values, folder, say, err.is_terminal)
    rows = [(outcome.notebook, f"{outcome.seconds:.0f}", "ran" if outcome.ok else "failed") for outcome in outcomes]
    print_table(("notebook", "seconds", "outcome"), rows)
    say(f"Read them in a browser: {(folder / 'index.html').resolve()}")
    end(outcomes)


@app.command(context_settings={"ignore_unknown_options": True})
@click.argument("what", type=Text(), metavar="NOTEBOOK|pretrain|finetune")
@click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="-p NAME VALUE [VALUE …] [-p …]")
@click.option("--out", "folder", type=Folder(), help="Where notebooks are written.  [default: runs/sweep/NOTEBOOK]")
@click.option("--preset", type=Text(), help="Of pretrain and finetune, as there.")
@click.option("--jobs", type=Number(int, 1, 1000), default=1, help="Processes of this machine that share the work.")
@click.option("--backend", type=Text(BACKENDS), default="loky", help="Of joblib: loky (here), dask or ray.")
@click.option("--scheduler", type=Text(), help="Address of Dask's scheduler, or of a Ray cluster.")
def sweep(what, words, folder, preset, **how):
    """Run a notebook, or training, for every combination of values, for instance

    selfie-lite sweep nbs/06_finetuning.ipynb -p labels 0.05 0.2 -p seed 0 1 2 --jobs 2

    selfie-lite sweep pretrain -p queries additive location -p seed 0 1 2     (into runs/)

    Run it again to go on: what is finished stays, what failed or was interrupted is run again."""
    groups: list[tuple[str, list[str]]] = []
    for before, word in zip(("", *words), words, strict=False):
        if before == "-p":
            groups.append((word, []))
        elif word != "-p" and groups and not word.startswith("--"):
            groups[-1][1].append(word)
        elif word != "-p":
            raise click.UsageError(
                f"'{word}' is out of place: selfie-lite sweep {what} -p NAME VALUE … -p NAME VALUE …"
            )
    if what in ("pretrain", "finetune"):
        if folder:
            raise click.UsageError("--out is for notebooks: runs are written to runs/NAME, each under its own name.")
        folder = Path("runs")
        outcomes = run_cells(training_cells(what, groups, preset), folder / "sweep" / what, **how)
    else:
        if preset:
            raise click.UsageError("--preset is for sweeps of pretrain and finetune.")
        folder = folder or Path("runs/sweep") / Path(what).stem
        progress = err.is_terminal and how["jobs"] == 1 and how["backend"] == "loky"
        outcomes = run_notebooks(Path(what), groups, folder, progress, **how)
    good = sum(outcome is None or outcome.ok for outcome in outcomes)
    say(f"{good} of {len(outcomes)} are in {folder}")
    end([outcome for outcome in outcomes if outcome])


def end(outcomes: list[Outcome]) -> None:
    """Say what failed, and leave with 1 if something did."""
    failed = [outcome for outcome in outcomes if not outcome.ok]
    for outcome in failed:
        warn(f"failed: {outcome.error}")
    sys.exit(1 if failed else 0)


def training_cells(kind: str, groups: list[tuple[str, list[str]]], preset: str | None) -> dict[str, partial]:
    """A run for every combination of settings, named by its values and a hash."""
    from selfie_lite.cli.training import KINDS, choose_config
    from selfie_lite.errors import require_choice
    from selfie_lite.workbook.parameters import read_value

    base = choose_config(kind, preset, None, {})
    fields = base.to_dict()

    def read(name: str, text: str) -> Any:
        require_choice("setting", name, [name for name in fields if name not in ("name", "resume")])
        return read_value(name, text, type(fields[name]).__name__)

    cells = {}
    for title, values in combinations(read_grid(groups, read), kind):
        name = name_of(f"{kind},{title}", {"preset": preset} | values)
        config = base.updated(name=name, **values)  # a setting that cannot be is refused before anything runs
        cells[title] = partial(train_cell, KINDS[kind][1], config)
    return cells


def train_cell(train: Any, config: Any) -> Outcome | None:
    """One run, begun, or gone on with; None if it has ended already."""
    from selfie_lite.benchmarks.ladder import going_on, lines_of
    from selfie_lite.training.checkpoint import list_checkpoints

    os.environ.setdefault("TQDM_DISABLE", "1")
    start = time.perf_counter()
    checkpoints = list_checkpoints(config.folder / "checkpoint")
    ended = bool(checkpoints) and int(checkpoints[-1].name) == config.steps
    lines_of(train(going_on(config)), config.steps)
    return None if ended else Outcome(config.name, time.perf_counter() - start, True)
