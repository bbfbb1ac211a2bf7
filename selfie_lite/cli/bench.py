"""selfie-lite bench pretrain | inspector: how fast things are here."""

from pathlib import Path

import click
from rich.table import Table

from selfie_lite.cli.base import Group, Number, ResultFile, app, err, out, write_result
from selfie_lite.errors import require_choice
from selfie_lite.training.pretrain import PRESETS


@app.group(cls=Group)
def bench():
    """Measure how fast things are on this machine."""


@bench.command("pretrain")
@click.option("--preset", default="laptop", help="laptop, cifar10, imagenette or imagenet: network, sizes, optimiser.")
@click.option("--arch", help="resnet50 or resnet18.  [default: the preset's]", show_default=False)
@click.option(
    "--batch-size", type=Number(int, 1), help="Images in a step.  [default: the preset's]", show_default=False
)
@click.option("--part", "parts", multiple=True, help="Only this part; repeatable.  [default: all]", show_default=False)
@click.option("--rounds", type=Number(int, 2), default=5, help="How often each candidate is timed.")
@click.option("--seconds", type=Number(float, 0.001, 3600), default=1.0, help="About how long one timing takes.")
@click.option(
    "--out",
    "file",
    type=ResultFile("bench pretrain"),
    default=Path("runs/bench/pretrain.json"),
    help="Where the result is written.",
)
def bench_pretrain(preset, arch, batch_size, parts, rounds, seconds, file):
    """Time a pretraining step; needs no data set. Parts: ladder (from a plain loop to the default), ceiling (P alone),
    roofline, locations (M at once), growth (with batch size, M, N), processes, input (reading JPEG files)."""
    from selfie_lite.benchmarks.pretraining import PARTS, bench_pretraining
    from selfie_lite.benchmarks.tables import tables

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
@click.option("--rounds", type=Number(int, 1), default=15, help="How often each control is changed.")
@click.option(
    "--out",
    "file",
    type=ResultFile("bench inspector"),
    default=Path("runs/bench/inspector.json"),
    help="Where the result is written.",
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


@bench.command("ladder")
@click.option("--arm", "arms", multiple=True, help="Only this arm; repeatable.  [default: all]", show_default=False)
@click.option("--seeds", type=Number(int, 1, 100), default=3, help="How many seeds, from 0.")
@click.option("--finetune", is_flag=True, help="Fine-tune every P too, at 200 and 800 labels.")
@click.option("--data", default="cifar10", help="Small images kept as arrays: cifar10, sample, or an import.")
@click.option("--steps", type=Number(int, 6), default=750, help="Of pretraining, of 64 images; a third for the search.")
@click.option("--out", "file", type=Path, default=Path("runs/bench/ladder.jsonl"), help="One line a cell; goes on.")
def bench_ladder(arms, seeds, finetune, data, steps, file):
    """What each part of Selfie buys (notebook 08): one change at a time against the paper's form, equal budgets, the
    learning rate searched for each arm. Stop it and start it again as you like; several processes share one file."""
    from selfie_lite.benchmarks.ladder import PIXELS, TRAINED, UNTRAINED, Budget, run_ladder

    budget = Budget(data=data, steps=steps, search_steps=max(3, steps // 3))
    kinds = ("pretrain", "finetune") if finetune else ("pretrain",)
    run_ladder(file, arms or [UNTRAINED, PIXELS, *TRAINED], range(seeds), budget, kinds, lambda text: out.print(text))


@bench.command("vectors")
@click.option("--from", "source", default="", help="Keep this model's P as it is.  [default: train P too, laptop49]")
@click.option("--data", default="imagenette", help="A data set, or a folder of images.")
@click.option("--seeds", type=Number(int, 1, 100), default=3, help="How many seeds, from 0.")
@click.option("--steps", type=Number(int, 8), default=200, help="Of training.")
@click.option("--batch-size", type=Number(int, 1), default=64, help="Images in a step.")
@click.option("--images", type=Number(int, 10), default=1000, help="With --from: how many of them.")
@click.option("--out", "file", type=Path, default=Path("runs/bench/vectors.jsonl"), help="One line a run; goes on.")
def bench_vectors(source, data, seeds, steps, batch_size, images, file):
    """One vector for each of 49 locations, or 7 + 7 (notebook 09): equal budgets, several seeds. Stop it and start it
    again as you like."""
    from selfie_lite.benchmarks.vectors import compare_vectors

    compare_vectors(file, data, source, range(seeds), steps, batch_size, images, lambda text: out.print(text))
