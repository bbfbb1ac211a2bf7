"""Which data sets there are, where they lie, how to get them, and the file that describes each."""

import json
import os
import re
from pathlib import Path

from selfie_lite.errors import DatasetNotFoundError, SelfieLiteError

BUNDLED = Path(__file__).resolve().parents[2] / "data_cache"  # what comes with the workbook
SPLITS = ("train", "test")
KNOWN = {
    "sample": "4,000 + 1,000 images of CIFAR-10, 32×32, bundled",
    "photos": "ten public-domain photographs, 224×224, bundled",
    "cifar10": "50,000 + 10,000 images in ten classes, 32×32",
    "imagenette": "9,469 + 3,925 images in ten classes of ImageNet, 224×224",
    "imagenet": "1.28 million + 50,000 images in 1,000 classes; bring your own copy",
}


def data_cache() -> Path:
    """Where downloads and imports are kept: the environment variable SELFIE_LITE_DATA, or data_cache/."""
    return Path(os.environ.get("SELFIE_LITE_DATA", BUNDLED)).expanduser()


def is_plain_name(name: str) -> bool:
    """Letters, digits, - and _ only: a name that can stand as a folder in data_cache/."""
    return re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", name) is not None


def how_to_get(name: str) -> str:
    """Both ways to a data set that is not here."""
    if name == "imagenet":
        return (
            "ImageNet is not on this machine. Link your own copy, laid out as torchvision's ImageNet reads it (its two "
            f"archives and the devkit, or train/, val/ and meta.bin): ln -s FOLDER {data_cache() / 'imagenet'}\n"
            "or give the folder that holds train/ and val/ in place of the name."
        )
    return (
        f"'{name}' is not on this machine. With a network:  selfie-lite data download {name}\n"
        f"Without: bring the images as FOLDER/train/CLASS/* and FOLDER/test/CLASS/* (or val/), then  "
        f"selfie-lite data import {name} FOLDER"
    )


def installed_datasets() -> dict[str, dict]:
    """The descriptions (dataset.json) of the bundled and imported data sets, by name."""
    found = {}
    for path in [*sorted(BUNDLED.glob("[!.]*/dataset.json")), *sorted(data_cache().glob("[!.]*/dataset.json"))]:
        try:
            description = json.loads(path.read_text(encoding="utf-8"))
        except ValueError:  # listed, and reported by verify_dataset
            description = {"counts": {}, "image_size": 0, "sha256": {path.name: "damaged"}}
        found[path.parent.name] = description | {"folder": path.parent}
    return found


def read_description(folder: Path) -> dict:
    try:
        return json.loads((folder / "dataset.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DatasetNotFoundError(
            f"{folder} is not there: the bundled images lie beside the library in its clone. "
            "Install with `make lab`, or `pip install -e .` inside the clone."
        ) from None
    except ValueError:
        raise SelfieLiteError(
            f"{folder / 'dataset.json'} is damaged. Import the data set again with --replace."
        ) from None
