"""selfie-lite bench pretrain | inspector | ladder, and reproduce: how fast things are here, and what they are worth."""

from pathlib import Path

import click

from selfie_lite.benchmarks.ladder import PIXELS, TRAINED, UNTRAINED, Budget, run_ladder
from selfie_lite.benchmarks.pretraining import PARTS, bench_pretraining
from selfie_lite.benchmarks.reproduce import PARTS as REPRODUCED
from selfie_lite.benchmarks.reproduce import SCALES
from selfie_lite.benchmarks.reproduce import reproduce as run_reproduction
from selfie_lite.benchmarks.tables import tables
from selfie_lite.cli.base import (
    Folder,
    Group,
    Number,
    Place,
    Text,
    app,
    print_table,
    result_file,
    say,
    warn,
    write_result,
)  # fmt: skip
from selfie_lite.patch_network import DIMS
from selfie_lite.training.pretrain import PRESETS

ALL_ARMS = (UNTRAINED, PIXELS, *TRAINED)


@app.group(cls=Group)
def bench():
    """Measure how fast things are on this machine."""


@bench.command("pretrain")
@click.option(
    "--preset", type=Text(PRESETS), default="laptop", help=f"{', '.join(PRESETS)}: network, sizes, optimiser."
)
@click.option("--arch", type=Text(DIMS), help=f"{' or '.join(DIMS)}.  [default: the preset's]")
@click.option("--batch-size", type=Number(int, 1), help="Images in a step.  [default: the preset's]")
@click.option("--part", "parts", type=Text(PARTS), multiple=True, help="Only this part; repeatable.  [default: all]")
@click.option("--rounds", type=Number(int, 2), default=5, help="How often each candidate is timed.")
@click.option("--seconds", type=Number(float, 0.001, 3600), default=1.0, help="About how long one timing takes.")
@result_file("bench pretrain", "runs/bench/pretrain.json")
def bench_pretrain(preset, arch, batch_size, parts, rounds, seconds, file):
    """Time a pretraining step; needs no data set. Parts: ladder (from a plain loop to the default), ceiling (P alone),
    roofline, locations (M at once), growth (with batch size, M, N), processes, input (reading JPEG files)."""
    chosen = {"arch": arch, "batch_size": batch_size}
    config = PRESETS[preset].updated(**{name: value for name, value in chosen.items() if value is not None})
    result = bench_pretraining(config, parts or PARTS, rounds, seconds, warn)
    for title, columns, rows in tables(result):
        print_table(columns, rows, title)
    write_result(file, result)


@bench.command("inspector")
@click.option("--rounds", type=Number(int, 1), default=15, help="How often each control is changed.")
@result_file("bench inspector", "runs/bench/inspector.json")
def bench_inspector(rounds, file):
    """Time from a change of a control of the patch inspector to the new picture, with the bundled models."""
    from selfie_lite.benchmarks.inspector import time_inspector

    result = time_inspector(rounds)
    rows = [
        (row["change"], *(f"{row['milliseconds'][key]:.0f}" for key in ("median", "high"))) for row in result["changes"]
    ]
    print_table(("change", "milliseconds", "slowest"), rows)
    write_result(file, result)


@bench.command("ladder")
@click.option("--arm", "arms", type=Text(ALL_ARMS), multiple=True, help="Only this arm; repeatable.  [default: all]")
@click.option("--seeds", type=Number(int, 1, 100), default=3, help="How many seeds, from 0.")
@click.option("--finetune", is_flag=True, help="Fine-tune every P too, at 200 and 800 labels.")
@click.option(
    "--data", type=Text(), default="cifar10", help="Small images kept as arrays: cifar10, sample, or an import."
)
@click.option("--steps", type=Number(int, 6), default=750, help="Of pretraining, of 64 images; a third for the search.")
@click.option("--out", "file", type=Place(), default=Path("runs/bench/ladder.jsonl"), help="One line a cell; goes on.")
def bench_ladder(arms, seeds, finetune, data, steps, file):
    """What each part of Selfie buys (notebook 08): one change at a time against the paper's form, equal budgets, the
    learning rate searched for each arm. Stop it and start it again as you like; several processes share one file."""
    budget = Budget(data=data, steps=steps, search_steps=max(3, steps // 3))
    kinds = ("pretrain", "finetune") if finetune else ("pretrain",)
    run_ladder(file, arms or ALL_ARMS, range(seeds), budget, kinds, say)


@bench.command("vectors")
@click.option("--from", "source", type=Text(), help="Keep this model's P as it is.  [default: train P too, laptop49]")
@click.option("--data", type=Text(), default="imagenette", help="A data set, or a folder of images.")
@click.option("--seeds", type=Number(int, 1, 100), default=3, help="How many seeds, from 0.")
@click.option("--steps", type=Number(int, 8), default=200, help="Of training.")
@click.option("--batch-size", type=Number(int, 1), default=64, help="Images in a step.")
@click.option("--images", type=Number(int, 10), default=1000, help="With --from: how many of them.")
@click.option("--out", "file", type=Place(), default=Path("runs/bench/vectors.jsonl"), help="One line a run; goes on.")
def bench_vectors(source, data, seeds, steps, batch_size, images, file):
    """One vector for each of 49 locations, or 7 + 7 (notebook 09): equal budgets, several seeds. Stop it and start it
    again as you like."""
    from selfie_lite.benchmarks.vectors import compare_vectors

    compare_vectors(file, data, source or "", range(seeds), steps, batch_size, images, say)


@app.command()
@click.option("--minutes", type=Number(float, 0.01, 1e5), default=25, help="Of work, over all calls with this folder.")
@click.option("--out", "folder", type=Folder(), default=Path("runs/reproduce"), help="Where everything is written.")
@click.option(
    "--only", type=Text(REPRODUCED), multiple=True, help=f"{', '.join(REPRODUCED)}; repeatable.  [default: all]"
)
@click.option("--scale", type=Text(SCALES), default="full", help="full, or tiny: the same plan in little.")
@click.option("--public", type=Place(), help="A folder with the files of wuhoward/SELFIE, to be timed beside ours.")
def reproduce(minutes, folder, only, scale, public):
    """Run check, speed, cifar10, ladder and imagenette, in order of worth, as large as the minutes allow.

    What there was no time for is listed. The same command goes on where it was stopped. Nothing is downloaded."""
    parts = run_reproduction(folder, minutes, only, scale, public, say)
    rows = [(part, row["outcome"], f"{row['seconds']:.0f}", row["why"]) for part, row in parts.items()]
    print_table(("part", "outcome", "seconds", "why not"), rows)
