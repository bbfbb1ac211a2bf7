"""Data sets in data_cache/: written whole or not at all, one of a name at a time."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from selfie_lite.data.catalog import SPLITS, data_cache, description_sha256, is_plain_name
from selfie_lite.data.folders import is_hidden
from selfie_lite.errors import SelfieLiteError
from selfie_lite.files import disk_errors_in_words, locked, printable, sha256, whole_folder, write_file


class DatasetWriter:
    """Writes the parts of a data set into `folder`: write(split, batches of (images, labels)), the images (B, 3, H, W)
    uint8, or a list of the bytes of image files."""

    def __init__(self, folder: Path, name: str, image_size: int, classes: list[str]):
        self.folder, self.name, self.image_size, self.classes = folder, name, image_size, list(classes)
        self.counts: dict[str, int] = {}
        self.sha256: dict[str, str] = {}

    def __call__(self, split: str, batches: Iterable[tuple[np.ndarray | list[bytes], np.ndarray]]) -> None:
        labels: list[np.ndarray] = []
        sizes: list[int] = []
        digest = hashlib.sha256()
        with open(self.folder / f"{split}_images.bin", "wb") as file:
            for images, batch_labels in batches:
                if isinstance(images, list):
                    sizes += map(len, images)
                for part in images if isinstance(images, list) else [np.ascontiguousarray(images).data]:
                    file.write(part)
                    digest.update(part)
                labels.append(batch_labels)
        self.sha256[f"{split}_images.bin"] = digest.hexdigest()
        arrays = {"labels": np.concatenate(labels).astype(np.int64)} | ({"ends": np.cumsum(sizes)} if sizes else {})
        for kind, values in arrays.items():
            path = self.folder / f"{split}_{kind}.npy"
            np.save(path, values)
            self.sha256[path.name] = sha256(path)
        self.counts[split] = len(arrays["labels"])

    def describe(self) -> None:
        description = {"name": self.name, "image_size": self.image_size, "classes": self.classes}
        description |= {"counts": self.counts, "sha256": self.sha256}
        description["description_sha256"] = description_sha256(description)
        write_file(self.folder / "dataset.json", json.dumps(description, indent=1))


@contextmanager
def dataset_writer(
    name: str, image_size: int, classes: list[str], bytes_needed: int, replace: bool = False
) -> Iterator[DatasetWriter]:
    """Gives a `DatasetWriter`; the data set appears under its name when the block ends, and nothing of it does if the
    block fails."""
    require_free(name, replace)
    cache = data_cache()
    kept = f"Nothing of '{name}' was kept and nothing else was touched. Point SELFIE_LITE_DATA at a place with room."
    at_work = f"another process is just making the data set '{name}'. Wait until it has ended."
    with disk_errors_in_words(cache, kept):
        cache.mkdir(parents=True, exist_ok=True)
        with locked(cache, at_work, f".importing-{name}.lock"):
            require_free(name, replace)
            with _whole_dataset(name, image_size, classes, bytes_needed) as write:
                yield write


@contextmanager
def _whole_dataset(name: str, image_size: int, classes: list[str], bytes_needed: int) -> Iterator[DatasetWriter]:
    cache = data_cache()
    with whole_folder(cache / name, "dataset.json") as work:
        free = shutil.disk_usage(cache).free
        if bytes_needed > free:
            raise SelfieLiteError(
                f"'{name}' takes {bytes_needed / 1e9:.1f} GB, but {cache} has {free / 1e9:.1f} GB left. "
                "Make room, or point SELFIE_LITE_DATA at another disk."
            )
        write = DatasetWriter(work, name, image_size, classes)
        yield write
        write.describe()


def require_free(name: str, replace: bool) -> None:
    """A data set may be made under this name: there is none, or an import that may be replaced."""
    if not isinstance(name, str) or not is_plain_name(name):
        raise SelfieLiteError(f"{name!r} cannot name a data set: use letters, digits, - and _, 100 at most.")
    if name in ("sample", "photos"):
        raise SelfieLiteError(f"'{name}' is bundled with the workbook: choose another name.")
    place = data_cache() / name
    if not os.path.lexists(place):
        return
    if not replace:
        raise SelfieLiteError(f"{place} is already there. To put the new one in its place, add --replace.")
    if place.is_symlink():  # the link is replaced, what it leads to stays
        return
    ours = {
        "dataset.json",
        *(f"{split}_{rest}" for split in SPLITS for rest in ("images.bin", "labels.npy", "ends.npy")),
    }
    others = [path.name for path in place.iterdir() if path.name not in ours] if place.is_dir() else [""]
    if others := [path for path in others if not is_hidden(path)]:
        raise SelfieLiteError(
            f"{place} is no import{others[0] and f' (it holds {printable(others[0])})'}, and is not replaced: choose "
            "another name, or move it away."
        )
