"""selfie-lite data import | download | list | verify."""

import sys

import click

from selfie_lite.cli.base import Group, Number, Place, Text, app, print_table, say, warn
from selfie_lite.data.catalog import KNOWN, data_cache


@app.group(cls=Group)
def data():
    """Bring images in, list them, check them."""


@data.command("import")
@click.argument("name", type=Text())
@click.argument("folder", type=Place())
@click.option("--size", type=Number(int, 1, 65500), help="Pixels a side.  [default: 224; cifar10, imagenet32: 32]")
@click.option("--workers", type=Number(int, 0, 1024), help="That decode.  [default: one a CPU core, eight at most]")
@click.option("--skip-unreadable", is_flag=True, help="Leave out images that cannot be read, and say how many.")
@click.option("--replace", is_flag=True, help="Take the place of an earlier import of this name.")
def import_(name, folder, size, workers, skip_unreadable, replace):
    """Turn FOLDER into the data set NAME in data_cache/, once.

    FOLDER holds train/CLASS/* and test/CLASS/* (or val/), or CLASS/*, or just images; or the batches of the
    downsampled ImageNet. Up to 64 pixels images are kept as arrays, above that as the bytes of their files.
    """
    from selfie_lite.data.importing import import_folder

    counts, skipped = import_folder(name, folder, size, workers, skip_unreadable, replace)
    for text in skipped[:20]:
        warn(f"left out: {text}")
    if skipped:
        say(f"{len(skipped)} unreadable images were left out.")
    _say_imported(name, counts)


@data.command()
@click.argument("name", type=Text())
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
    rows = []
    for name in dict.fromkeys([*KNOWN, *installed]):
        counts, size = (installed[name][key] for key in ("counts", "image_size")) if name in installed else ({}, 0)
        here = " + ".join(f"{count:,}" for count in counts.values()) or "no"
        rows.append((name, here, KNOWN.get(name, f"your import, {size}×{size}")))
    print_table(("name", "images here", "what it is"), rows)


@data.command()
@click.argument("names", type=Text(), nargs=-1)
def verify(names):
    """Compare the files of data sets (default: all that are here) with the SHA-256 written when they were made."""
    from selfie_lite.data.catalog import installed_datasets
    from selfie_lite.data.importing import verify_dataset

    damaged = 0
    for name in names or installed_datasets():
        files = verify_dataset(name)
        damaged += len(files)
        say(f"{name}: {'damaged or missing: ' + ', '.join(files) if files else 'whole'}")
    if damaged:
        warn("Bring a damaged data set again: selfie-lite data import NAME FOLDER --replace")
        sys.exit(1)


def _say_imported(name: str, counts: dict[str, int]) -> None:
    parts = ", ".join(f"{count:,} {split}" for split, count in counts.items())
    say(f"{name}: {parts} images in {data_cache() / name}. Use: load_dataset('{name}')")
