"""The command line: selfie-lite walkthrough | pretrain | finetune | evaluate | sweep | compare | export | inspect |
data | bench."""

import json
import subprocess
import sys
from dataclasses import fields
from functools import partial
from pathlib import Path

import click
import torch
from rich.console import Console
from rich.table import Table

from selfie_lite.data.catalog import KNOWN, data_cache
from selfie_lite.errors import SelfieLiteError, require_choice, suggestion
from selfie_lite.training.finetune import FINETUNE_PRESETS, SCRATCH, search_learning_rate
from selfie_lite.training.finetune import finetune as run_finetuning
from selfie_lite.training.loop import RUNS
from selfie_lite.training.pretrain import PRESETS
from selfie_lite.training.pretrain import pretrain as run_pretraining

out, err = Console(soft_wrap=True, highlight=False), Console(stderr=True, soft_wrap=True, highlight=False)


class Group(click.Group):
    """A group of commands that offers the nearest right name for a misspelt one."""

    def resolve_command(self, context, arguments):
        if arguments and not arguments[0].startswith("-") and arguments[0] not in self.commands:
            context.fail(f"no command '{arguments[0]}'.{suggestion(arguments[0], self.commands)}")
        return super().resolve_command(context, arguments)


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.version_option(package_name="selfie-lite")
def app():
    """Selfie: pretrain an image network by letting it pick hidden patches (arXiv 1906.02940)."""


@app.command()
@click.option("--only", multiple=True, metavar="NN", help="Run just the notebooks that begin so, 03 say; repeatable.")
@click.option(
    "-p", "--parameter", "parameters", type=(str, str), multiple=True, metavar="NAME VALUE",
    help="Set a parameter of the notebooks, for instance -p steps 200; repeatable.",
)  # fmt: skip
@click.option("--out", "folder", type=Path, default=Path("runs/walkthrough"), help="Where everything is written.")
def walkthrough(only, parameters, folder):
    """Run the notebooks of nbs/ in order; keep them, with their outputs, as notebooks and as web pages."""
    from selfie_lite.workbook import walkthrough as runner
    from selfie_lite.workbook.notebook import run_notebook
    from selfie_lite.workbook.parameters import read_parameters

    notebooks = runner.find_notebooks(list(only))
    values = read_parameters(list(parameters), notebooks)
    outcomes = []
    for number, path in enumerate(notebooks, 1):
        outcome = run_notebook(path, folder / path.name, values, show_progress=err.is_terminal)
        outcomes.append(outcome)
        out.print(
            f"{number}/{len(notebooks)} {path.stem}: {'ran' if outcome.ok else 'FAILED'}, {outcome.seconds:.0f} s"
        )
    index = runner.write_index(folder, outcomes)
    table = Table("notebook", "seconds", "outcome")
    for outcome in outcomes:
        table.add_row(outcome.notebook, f"{outcome.seconds:.0f}", "ran" if outcome.ok else "failed")
    out.print(table)
    out.print(f"Read them in a browser: {index.resolve()}", markup=False)
    failed = [outcome for outcome in outcomes if not outcome.ok]
    for outcome in failed:
        err.print(f"failed: {outcome.error}", markup=False)
    sys.exit(1 if failed else 0)


def options_of(config):
    """One option for each field of a configuration, with its help, and its value in `config` as the default shown."""

    def decorate(command):
        for f in reversed(fields(config)):
            default, flag = getattr(config, f.name), f.metadata["flag"] or "--" + f.name.replace("_", "-")
            flag = f"{flag}/--no-{flag[2:]}" if isinstance(default, bool) else flag
            text = f"{f.metadata['help']}  [default: {'none' if default == '' else default}]"
            command = click.option(flag, f.name, type=type(default), default=None, help=text, show_default=False)(
                command
            )
        return command

    return decorate


@app.command()
@click.option(
    "--preset", default=None, help="laptop, cifar10, imagenette or imagenet: other defaults.  [default: laptop]"
)
@click.option("--config", "file", type=Path, help="Settings from a run's config.json, to repeat it.")
@options_of(PRESETS["laptop"])
def pretrain(preset, file, **settings):
    """Pretrain P on images without labels; everything is written to runs/NAME. The defaults shown are those of the
    preset laptop.

    Several GPUs or machines: accelerate launch -m selfie_lite pretrain …, or torchrun … -m selfie_lite pretrain …
    """
    run_in_processes(run_pretraining, choose_config(PRESETS, preset, file, settings))


@app.command()
@click.option(
    "--preset", default=None, help="laptop, cifar10, imagenette or imagenet: other defaults.  [default: laptop]"
)
@click.option("--config", "file", type=Path, help="Settings from a run's config.json, to repeat it.")
@click.option(
    "--search", "rates", type=float, multiple=True,
    help="Try this learning rate; repeatable. The one that is best on the validation part is kept.",
)  # fmt: skip
@options_of(FINETUNE_PRESETS["laptop"])
def finetune(preset, file, rates, **settings):
    """Train a classifier from P, or from scratch, on a part of the labels; everything is written to runs/NAME. The
    defaults shown are those of the preset laptop."""
    if settings["pretrained"] not in (None, SCRATCH) and not file:  # P says which network, not the preset
        settings |= {name: settings[name] or "" for name in ("arch", "stem")}
    train = partial(search_learning_rate, learning_rates=rates) if rates else run_finetuning
    run_in_processes(train, choose_config(FINETUNE_PRESETS, preset, file, settings))


@app.command()
@click.option("--from", "sources", multiple=True, default=["additive"], help="As in finetune; repeatable.")
@click.option("--data", default="sample", help="A data set, or a folder of images.")
@click.option("--labels", default=1.0, help="Part of the training labels that the probes may use.")
@click.option("--seed", default=0, help="Which part, and of the fresh P.")
@click.option("--image-size", type=int, help="Of images in a folder, pixels.")
@click.option("--out", "file", type=Path, default=Path("runs/evaluate.json"), help="Where the result is written.")
def evaluate(sources, data, labels, seed, image_size, file):
    """How much a frozen P knows of the classes: a weighted nearest-neighbour and a linear probe on its features, beside
    those of a fresh P and of raw pixels."""
    from selfie_lite.evaluation.probes import evaluate_features

    result = evaluate_features(sources, data, labels, seed, image_size)
    table = Table("features", "nearest neighbours", "linear")
    for row in result["rows"]:
        table.add_row(row["features"], f"{row['knn']:.3f}", f"{row['linear']:.3f}")
    table.add_row("guessing", *2 * [f"{1 / result['classes']:.3f}"])
    out.print(table)
    write_result(file, result)


@app.command(context_settings={"ignore_unknown_options": True})
@click.argument("notebook", type=Path)
@click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="-p NAME VALUE [VALUE …] [-p …]")
@click.option("--out", "folder", type=Path, help="Where everything is written.  [default: runs/sweep/NOTEBOOK]")
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


def choose_config(presets, preset, file, settings):
    """What a command line asks for: a preset, a file, or the settings of the run to resume; and what it changes."""
    if preset and file:
        raise SelfieLiteError("give --preset or --config, not both.")
    if settings["resume"] and not preset and not file:
        file = RUNS / (settings["name"] or presets["laptop"].name) / "config.json"  # the run's own settings
    require_choice("preset", preset or "laptop", presets)
    config = presets[preset or "laptop"]
    if file:
        try:
            config = type(config).from_dict(json.loads(file.read_text(encoding="utf-8")))
        except (OSError, ValueError) as error:
            if isinstance(error, SelfieLiteError):
                raise
            raise SelfieLiteError(f"{file} cannot be read as settings: {error}") from None
    return config.updated(**{name: value for name, value in settings.items() if value is not None})


def run_in_processes(train, config):
    try:
        return train(config)
    finally:
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()  # a process that leaves without it may abort


@app.command()
@click.argument("runs", nargs=-1)
@click.option("--out", "file", type=Path, help="Write the comparison there, as JSON.")
def compare(runs, file):
    """Finished RUNS (names or folders) side by side: settings that differ, and the held-out accuracy of each seed."""
    from selfie_lite.evaluation.results import compare_runs

    result = compare_runs(runs)
    names = list(result["rows"][0]["changed"])
    table = Table(*names, "median held-out accuracy", "of each seed")
    for row in result["rows"]:
        seeds = ", ".join(f"{accuracy:.3f} ({seed})" for seed, accuracy in row["accuracy"].items())
        table.add_row(*(str(row["changed"][name]) for name in names), f"{row['median_accuracy']:.3f}", seeds)
    out.print(table)
    if file:
        write_result(file, result)


@app.command()
@click.option("--from", "run", required=True, help="A run, a bundled model, or weights made elsewhere.")
@click.option("--to", "form", required=True, help="torchvision, hub or bundle.")
@click.argument("target", type=Path)
def export(run, form, target):
    """Write the newest weights of a run to TARGET.

    torchvision: a .safetensors file, the state dict of torchvision's and timm's ResNet. hub: a folder for
    PatchNetwork.from_pretrained. bundle: a folder for load_pretrained, float16, with settings, metrics and SHA-256.
    """
    from selfie_lite.training.weights import export as write

    lines = write(run, form, target)
    file = target if target.is_file() else target / "model.safetensors"
    out.print(f"{target}: {file.stat().st_size / 1e6:.1f} MB. Use:\n{lines}", markup=False)


@app.group(cls=Group)
def data():
    """Bring images in, list them, check them."""


@data.command("import")
@click.argument("name")
@click.argument("folder", type=Path)
@click.option("--size", type=int, help="Pixels a side to store.  [default: 32 for cifar10, else 224]")
@click.option("--workers", type=int, help="Processes that decode.  [default: one a CPU core, eight at most]")
@click.option("--skip-unreadable", is_flag=True, help="Leave out images that cannot be read, and say how many.")
@click.option("--replace", is_flag=True, help="Take the place of an earlier import of this name.")
def import_(name, folder, size, workers, skip_unreadable, replace):
    """Turn FOLDER into the data set NAME in data_cache/, once.

    FOLDER holds train/CLASS/* and test/CLASS/* (or val/), or CLASS/*, or just images.
    """
    from selfie_lite.data.importing import import_folder

    counts, skipped = import_folder(name, folder, size, workers, skip_unreadable, replace)
    for text in skipped[:20]:
        err.print(f"left out: {text}", markup=False)
    if skipped:
        out.print(f"{len(skipped)} unreadable images were left out.")
    _say_imported(name, counts)


@data.command()
@click.argument("name")
@click.option("--replace", is_flag=True, help="Fetch it again.")
def download(name, replace):
    """Fetch the data set NAME through torchvision: cifar10 (170 MB) or imagenette (340 MB)."""
    from selfie_lite.data.importing import download_dataset

    _say_imported(name, download_dataset(name, replace))


@data.command("list")
def list_():
    """The data sets: what is here, and what could be."""
    from selfie_lite.data.catalog import installed_datasets

    installed = installed_datasets()
    table = Table("name", "images here", "what it is")
    for name in dict.fromkeys([*KNOWN, *installed]):
        counts, size = (installed[name][key] for key in ("counts", "image_size")) if name in installed else ({}, 0)
        here = " + ".join(f"{count:,}" for count in counts.values()) or "no"
        table.add_row(name, here, KNOWN.get(name, f"your import, {size}×{size}"))
    out.print(table)


@data.command()
@click.argument("names", nargs=-1)
def verify(names):
    """Compare the files of data sets (default: all that are here) with the SHA-256 written when they were made."""
    from selfie_lite.data.catalog import installed_datasets
    from selfie_lite.data.importing import verify_dataset

    damaged = 0
    for name in names or installed_datasets():
        files = verify_dataset(name)
        damaged += len(files)
        out.print(f"{name}: {'damaged or missing: ' + ', '.join(files) if files else 'whole'}", markup=False)
    if damaged:
        err.print("Bring a damaged data set again: selfie-lite data import NAME FOLDER --replace", markup=False)
        sys.exit(1)


@app.group(cls=Group)
def bench():
    """Measure how fast things are on this machine."""


@bench.command("pretrain")
@click.option("--preset", default="laptop", help="laptop, cifar10, imagenette or imagenet: network, sizes, optimiser.")
@click.option("--arch", help="resnet50 or resnet18.  [default: the preset's]", show_default=False)
@click.option("--batch-size", type=int, help="Images in a step.  [default: the preset's]", show_default=False)
@click.option("--part", "parts", multiple=True, help="Only this part; repeatable.  [default: all]", show_default=False)
@click.option("--rounds", default=5, help="How often each candidate is timed.")
@click.option("--seconds", default=1.0, help="About how long one timing takes.")
@click.option("--out", "file", type=Path, default=Path("runs/bench/pretrain.json"), help="Where the result is written.")
def bench_pretrain(preset, arch, batch_size, parts, rounds, seconds, file):
    """Time a pretraining step; needs no data set. Parts: ladder (from a plain loop to the default), ceiling (P alone),
    roofline, locations (M at once), growth (with batch size, M, N), processes, input (reading JPEG files)."""
    from selfie_lite.benchmarks.pretraining import PARTS, bench_pretraining, tables

    require_choice("preset", preset, PRESETS)
    chosen = {"arch": arch, "batch_size": batch_size}
    config = PRESETS[preset].updated(**{name: value for name, value in chosen.items() if value is not None})
    result = bench_pretraining(config, parts or PARTS, rounds, seconds, lambda text: err.print(text, markup=False))
    for title, columns, rows in tables(result):
        table = Table(*columns, title=title, title_justify="left")
        for row in rows:
            table.add_row(*row)
        out.print(table)
    write_result(file, result)


@bench.command("inspector")
@click.option("--rounds", default=15, help="How often each control is changed.")
@click.option(
    "--out", "file", type=Path, default=Path("runs/bench/inspector.json"), help="Where the result is written."
)
def bench_inspector(rounds, file):
    """Time from a change of a control of the patch inspector to the new picture, with the bundled models."""
    from selfie_lite.benchmarks.inspector import time_inspector

    result = time_inspector(rounds)
    table = Table("change", "milliseconds", "slowest")
    for row in result["changes"]:
        table.add_row(row["change"], *(f"{row['milliseconds'][key]:.0f}" for key in ("median", "high")))
    out.print(table)
    write_result(file, result)


@app.command()
@click.option("--model", default="additive", help="A bundled model, a run, or the folder of a checkpoint.")
@click.option("--compare", help="A second one beside it.")
@click.option("--data", default="sample", help="A data set, a folder of images, or one image.")
@click.option("--port", default=8866, help="Of the page.")
@click.option("--browser/--no-browser", default=True, help="Open a browser.")
def inspect(model, compare, data, port, browser):
    """Open the patch inspector alone, as a page (Voilà). Ctrl-C ends it."""
    import nbformat

    from selfie_lite.inspector import PatchInspector

    call = repr(PatchInspector(model, data, compare=compare))  # a mistake is told here, not in the page
    page = Path("runs/inspector/inspector.ipynb")
    page.parent.mkdir(parents=True, exist_ok=True)
    source = f"import os\n\nos.chdir({str(Path.cwd())!r})\nfrom selfie_lite.inspector import PatchInspector\n\n{call}"
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)], metadata=kernel), page)
    words = ["voila", str(page), f"--port={port}", "--show_tracebacks=False", *([] if browser else ["--no-browser"])]
    words += ["--Voila.tornado_settings={'websocket_max_message_size': 100_000_000}"]  # or no upload above 10 MB
    words += [f"--MappingKernelManager.cull_{what}=60" for what in ("interval", "idle_timeout")]  # of pages left behind
    err.print(f"the inspector is at http://localhost:{port}/ while this runs; Ctrl-C ends it", markup=False)
    sys.exit(subprocess.run([sys.executable, "-m", *words]).returncode)


def write_result(file: Path, result: dict) -> None:
    """A result as JSON, with the command that made it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    result = {"command": " ".join(["selfie-lite", *sys.argv[1:]])} | result
    file.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    out.print(f"written to {file}", markup=False)


def _say_imported(name: str, counts: dict[str, int]) -> None:
    parts = ", ".join(f"{count:,} {split}" for split, count in counts.items())
    out.print(f"{name}: {parts} images in {data_cache() / name}. Use: load_dataset('{name}')", markup=False)


def main() -> None:
    """Run the command line; a user's mistake is one message, never a traceback."""
    try:
        app(prog_name="selfie-lite", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except SelfieLiteError as error:
        err.print(f"error: {error}", markup=False)
        sys.exit(2)
    except (click.Abort, KeyboardInterrupt):
        err.print("stopped; nothing half-made was kept.")
        sys.exit(130)
