"""selfie-lite walkthrough | sweep: run notebooks."""

import sys
from functools import partial
from pathlib import Path

import click
from rich.table import Table

from selfie_lite.cli.base import Folder, Text, app, err, out


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
    say = partial(out.print, markup=False)
    outcomes = runner.run_walkthrough(notebooks, values, folder, say, err.is_terminal)
    table = Table("notebook", "seconds", "outcome")
    for outcome in outcomes:
        table.add_row(outcome.notebook, f"{outcome.seconds:.0f}", "ran" if outcome.ok else "failed")
    out.print(table)
    out.print(f"Read them in a browser: {(folder / 'index.html').resolve()}", markup=False)
    failed = [outcome for outcome in outcomes if not outcome.ok]
    for outcome in failed:
        err.print(f"failed: {outcome.error}", markup=False)
    sys.exit(1 if failed else 0)


@app.command(context_settings={"ignore_unknown_options": True})
@click.argument("notebook", type=Path)
@click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="-p NAME VALUE [VALUE …] [-p …]")
@click.option("--out", "folder", type=Folder(), help="Where everything is written.  [default: runs/sweep/NOTEBOOK]")
def sweep(notebook, words, folder):
    """Run NOTEBOOK for every combination of parameter values, for instance

    selfie-lite sweep nbs/06_finetuning.ipynb -p labels 0.05 0.2 -p seed 0 1 2

    Run it again to go on: what is finished stays, what failed or was interrupted is run again."""
    from selfie_lite.workbook.sweep import read_grid, run_sweep

    groups: list[tuple[str, list[str]]] = []
    for before, word in zip(("", *words), words, strict=False):
        if before == "-p":
            groups.append((word, []))
        elif word != "-p" and groups and not word.startswith("--"):
            groups[-1][1].append(word)
        elif word != "-p":
            raise click.UsageError(
                f"'{word}' is out of place: selfie-lite sweep NOTEBOOK -p NAME VALUE … -p NAME VALUE …"
            )
    folder = folder or Path("runs/sweep") / notebook.stem
    say = partial(out.print, markup=False)
    outcomes = run_sweep(notebook, read_grid(notebook, groups), folder, say, err.is_terminal)
    failed = [outcome for _, outcome in outcomes if outcome and not outcome.ok]
    for outcome in failed:
        err.print(f"failed: {outcome.error}", markup=False)
    out.print(f"{len(outcomes) - len(failed)} of {len(outcomes)} are in {folder}", markup=False)
    sys.exit(1 if failed else 0)
