"""Which data sets there are, where they lie, how to get them, and the file that describes each."""

import hashlib
import json
import os
import re
from collections.abc import Iterable
from numbers import Integral
from pathlib import Path

from selfie_lite.errors import DatasetNotFoundError, SelfieLiteError, suggestion
from selfie_lite.files import printable, read_json

BUNDLED = Path(__file__).resolve().parents[2] / "data_cache"  # what comes with the workbook
SPLITS = ("train", "test")
ARCHIVES = (".zip", ".tar", ".tgz", ".gz", ".bz2", ".xz", ".zst", ".7z", ".rar", ".tbz2", ".txz")
KNOWN = {
    "sample": "4,000 + 1,000 images of CIFAR-10, 32×32, bundled",
    "photos": "ten public-domain photographs, 224×224, bundled",
    "cifar10": "50,000 + 10,000 images in ten classes, 32×32",
    "imagenette": "9,469 + 3,925 photographs in ten classes of ImageNet",
    "imagenet32": "ImageNet at 32×32 pixels; import your own copy, or its downsampled release",
    "imagenet": "1.28 million + 50,000 images in 1,000 classes; bring your own copy",
}


def data_cache() -> Path:
    """Where downloads and imports are kept: the environment variable SELFIE_LITE_DATA, or, if that is not set or empty,
    data_cache/. It need not be there yet.

    Raises:
        SelfieLiteError: if the variable names a file.
    """
    place = Path(os.path.expanduser(os.environ.get("SELFIE_LITE_DATA") or BUNDLED))
    if os.path.lexists(place) and not os.path.isdir(place):
        raise SelfieLiteError(f"SELFIE_LITE_DATA should name a folder, but {printable(place)} is none.")
    return place


def is_plain_name(name: str) -> bool:
    """Letters, digits, - and _ only, 100 at most: a name that can stand as a folder in data_cache/."""
    return re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}", name) is not None


def require_pixels(what: str, value: int) -> int:
    """A height and width in pixels.

    Raises:
        SelfieLiteError: unless it is a whole number from 1 to 10,000.
    """
    if isinstance(value, bool) or not isinstance(value, Integral) or not 1 <= value <= 10_000:
        raise SelfieLiteError(f"{what} is a number of pixels, 1 to 10,000, but is {value!r}.")
    return int(value)


def no_folder(what: str, folder: str, choices: Iterable[str] | None = None) -> SelfieLiteError:
    """The error for a path that should be a folder of images: what is there instead, and what to do. `what` ends with
    the kind of thing that is not there; `choices` are the names that were possible."""
    shown = printable(folder)
    if os.path.isfile(folder):
        kind = "an archive: unpack it first" if Path(folder).suffix.lower() in ARCHIVES else "a file"
        return SelfieLiteError(f"{shown} is {kind}; give the folder that holds the images.")
    return DatasetNotFoundError(f"there is no {what} '{shown}'.{'' if choices is None else suggestion(shown, choices)}")


def how_to_get(name: str) -> str:
    """Both ways to a data set that is not here."""
    if name == "imagenet":
        return (
            "ImageNet is not on this machine. Link your own copy, laid out as torchvision's ImageNet reads it (its two "
            f"archives and the devkit, or train/, val/ and meta.bin): ln -s FOLDER {data_cache() / 'imagenet'}\n"
            "or give the folder that holds train/ and val/ in place of the name."
        )
    if name == "imagenet32":
        return (
            "'imagenet32' is not on this machine. Import the folder of ImageNet (train/ and val/), or that of its "
            "downsampled release (train_data_batch_1 …, val_data):  selfie-lite data import imagenet32 FOLDER"
        )
    return (
        f"'{name}' is not on this machine. With a network:  selfie-lite data download {name}\n"
        f"Without: bring the images as FOLDER/train/CLASS/* and FOLDER/test/CLASS/* (or val/), then  "
        f"selfie-lite data import {name} FOLDER"
    )


def installed_datasets() -> dict[str, dict]:
    """The descriptions (dataset.json) of the bundled and imported data sets, by name."""
    found = {}
    for path in [*sorted(BUNDLED.glob("*/dataset.json")), *sorted(data_cache().glob("*/dataset.json"))]:
        if not is_plain_name(path.parent.name):
            continue
        try:
            description = read_description(path.parent)
        except SelfieLiteError:  # listed, and reported by verify_dataset
            description = {"counts": {}, "image_size": 0, "sha256": {path.name: "damaged"}}
        found[path.parent.name] = description | {"folder": path.parent}
    return found


def read_description(folder: Path) -> dict:
    """The dataset.json of a data set: name, image_size, classes, counts and sha256 of its files.

    Raises:
        DatasetNotFoundError: if it is not there.
        SelfieLiteError: if it is not what `dataset_writer` writes.
    """
    path = folder / "dataset.json"
    if not path.is_file():
        raise DatasetNotFoundError(
            f"{folder} is not there: the bundled images lie beside the library in its clone. "
            "Install with `make lab`, or `pip install -e .` inside the clone."
        )
    needs = {"image_size": int, "classes": list, "counts": dict, "sha256": dict}
    try:
        description = read_json(path, "the description of a data set", needs)
        _check_description(description)
    except SelfieLiteError as error:
        raise SelfieLiteError(f"dataset.json is damaged: {error} Import the data set again with --replace.") from None
    return description


def _check_description(description: dict) -> None:
    require_pixels("image_size", description["image_size"])
    classes, counts, hashes = (description[key] for key in ("classes", "counts", "sha256"))
    if not classes or not all(isinstance(name, str) for name in classes):
        raise SelfieLiteError("'classes' should be a list of names.")
    if not set(counts) <= set(SPLITS) or not all(type(count) is int and count > 0 for count in counts.values()):
        raise SelfieLiteError("'counts' should be numbers of images, by split.")
    if not all(isinstance(digest, str) and Path(file).name == file for file, digest in hashes.items()):
        raise SelfieLiteError("'sha256' should be digests, by file.")
    if description.get("description_sha256", description_sha256(description)) != description_sha256(description):
        raise SelfieLiteError("it was changed after the import.")


def description_sha256(description: dict) -> str:
    """The SHA-256 of what a description says, however it is written."""
    said = {key: value for key, value in description.items() if key != "description_sha256"}
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()
