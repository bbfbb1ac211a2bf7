"""Turn a folder of images, or a download, into arrays in data_cache/, once; and check them later."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torchvision
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch.utils.data import DataLoader, Dataset

from selfie_lite.data.catalog import (
    KNOWN,
    SPLITS,
    data_cache,
    description_sha256,
    how_to_get,
    installed_datasets,
    is_plain_name,
    no_folder,
    require_pixels,
)
from selfie_lite.data.folders import FileNames, Found, is_hidden
from selfie_lite.data.images import find_images, read_image
from selfie_lite.errors import DatasetNotFoundError, SelfieLiteError, UnreadableImageError, suggestion
from selfie_lite.files import (
    disk_errors_in_words,
    is_full,
    locked,
    printable,
    sha256,
    whole_folder,
    write_file,
)

BATCH = 64  # images that a worker process hands over at a time


def import_folder(
    name: str,
    folder: str | Path,
    image_size: int | None = None,
    workers: int | None = None,
    skip_unreadable: bool = False,
    replace: bool = False,
) -> tuple[dict[str, int], list[str]]:
    """Read every image below `folder` once and keep it as data set `name`.

    The result appears as a whole or not at all: it is written beside its place and renamed when complete.

    Args:
        name: letters, digits, - and _.
        folder: laid out as FOLDER/train/CLASS/* and FOLDER/test/CLASS/* (or val/), FOLDER/CLASS/*, or FOLDER/*.
        image_size: height and width to store, in pixels. Default: 32 for "cifar10", else 224.
        workers: processes that decode. Default: one a CPU core, eight at most.
        skip_unreadable: leave out images that cannot be read, instead of stopping at the first.
        replace: take the place of an earlier import of this name.

    Returns:
        Number of images by split, and what was said of each one left out.

    Raises:
        SelfieLiteError: for a name in use, an empty folder, an unreadable image, or too little room on the disk.
    """
    if not isinstance(folder, str | os.PathLike) or not os.fspath(folder):
        raise SelfieLiteError(f"FOLDER should be a folder of images, but is {folder!r}.")
    path = os.path.expanduser(folder)
    if not os.path.isdir(path):
        raise no_folder("folder", path)
    size = require_pixels("--size", image_size if image_size is not None else 32 if name == "cifar10" else 224)
    _require_free(name, replace)
    workers = _require_workers(workers)
    found = find_images(Path(path))
    needed = sum(len(paths) for paths, _, _ in found.values()) * 3 * size**2
    with dataset_writer(name, size, found["train"][2], needed, replace) as write:
        skipped = _read_all(write, found, workers, skip_unreadable)
    return write.counts, skipped


def download_dataset(name: str, replace: bool = False) -> dict[str, int]:
    """Fetch "cifar10" (170 MB) or "imagenette" (340 MB) through torchvision and keep it in data_cache/.

    Raises:
        DatasetNotFoundError: if it cannot be fetched, with the way to bring it by hand.
    """
    if name not in ("cifar10", "imagenette"):
        ways = how_to_get(name) if name in KNOWN else suggestion(name, ["cifar10", "imagenette"]).strip()
        raise DatasetNotFoundError(f"'{name}' cannot be downloaded. {ways}")
    with dataset_writer(name, 32 if name == "cifar10" else 224, [], 0, replace) as write:
        raw = write.folder / "raw"
        raw.mkdir()
        try:
            if name == "cifar10":
                sets = {s: torchvision.datasets.CIFAR10(raw, s == "train", download=True) for s in ("train", "test")}
            else:
                for split in ("train", "val"):
                    torchvision.datasets.Imagenette(raw, split, size="320px", download=True)
        except Exception as error:  # of the network, of the archive, of what is in it
            if is_full(error):
                raise
            raise DatasetNotFoundError(f"the download of {name} failed: {error}\n{how_to_get(name)}") from None
        if name == "cifar10":
            write.classes = sets["train"].classes
            for split, dataset in sets.items():
                write(split, [(dataset.data.transpose(0, 3, 1, 2), np.array(dataset.targets))])
        else:
            found = find_images(next(raw.glob("imagenette2*/")))
            write.classes = found["train"][2]
            _read_all(write, found, _require_workers(None), False)
        shutil.rmtree(raw)
    return write.counts


class DatasetWriter:
    """Writes the parts of a data set into `folder`: write(split, batches of (images (B, 3, H, W) uint8, labels))."""

    def __init__(self, folder: Path, name: str, image_size: int, classes: list[str]):
        self.folder, self.name, self.image_size, self.classes = folder, name, image_size, list(classes)
        self.counts: dict[str, int] = {}
        self.sha256: dict[str, str] = {}

    def __call__(self, split: str, batches: Iterable[tuple[np.ndarray, np.ndarray]]) -> None:
        images_file, labels_file = f"{split}_images.bin", f"{split}_labels.npy"
        labels, digest = [], hashlib.sha256()
        with open(self.folder / images_file, "wb") as file:
            for images, batch_labels in batches:
                pixels = np.ascontiguousarray(images).data
                file.write(pixels)
                digest.update(pixels)
                labels.append(batch_labels)
        all_labels = np.concatenate(labels).astype(np.int64)
        np.save(self.folder / labels_file, all_labels)
        self.sha256 |= {images_file: digest.hexdigest(), labels_file: sha256(self.folder / labels_file)}
        self.counts[split] = len(all_labels)

    def describe(self) -> None:
        description = {"name": self.name, "image_size": self.image_size, "classes": self.classes}
        description |= {"counts": self.counts, "sha256": self.sha256}
        description["description_sha256"] = description_sha256(description)
        write_file(self.folder / "dataset.json", json.dumps(description, indent=1))


@contextmanager
def dataset_writer(
    name: str, image_size: int, classes: list[str], bytes_needed: int, replace: bool = False
) -> Iterator[DatasetWriter]:
    """Gives a function write(split, batches of (images (B, 3, H, W) uint8, labels (B,))); the data set appears under
    its name when the block ends, and nothing of it does if the block fails."""
    _require_free(name, replace)
    cache = data_cache()
    kept = f"Nothing of '{name}' was kept and nothing else was touched. Point SELFIE_LITE_DATA at a place with room."
    at_work = f"another process is just making the data set '{name}'. Wait until it has ended."
    with disk_errors_in_words(cache, kept):
        cache.mkdir(parents=True, exist_ok=True)
        with locked(cache, at_work, f".importing-{name}.lock"):
            _require_free(name, replace)
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


def verify_dataset(name: str) -> list[str]:
    """The files of data set `name` that are missing or whose SHA-256 is not the one written at import."""
    installed = installed_datasets()
    if name not in installed:
        raise DatasetNotFoundError(
            how_to_get(name) if name in KNOWN else f"no data set '{name}'.{suggestion(name, installed)}"
        )
    folder = installed[name]["folder"]
    return [
        file
        for file, expected in installed[name]["sha256"].items()
        if not (folder / file).is_file() or sha256(folder / file) != expected
    ]


class _Decoder(Dataset):
    """Reads one image; gives what was wrong, as text, in place of an image that cannot be read."""

    def __init__(self, paths: FileNames, labels: np.ndarray, size: int):
        self.paths, self.labels, self.size = paths, labels, size

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, index):
        try:
            return read_image(self.paths[index], self.size).transpose(2, 0, 1), self.labels[index]
        except UnreadableImageError as error:
            return str(error), None


def _pack(items: list) -> tuple[int, np.ndarray | None, np.ndarray, list[str]]:
    good = [(image, label) for image, label in items if label is not None]
    images = np.stack([image for image, _ in good]) if good else None
    return len(items), images, np.array([label for _, label in good]), [text for text, label in items if label is None]


def _read_all(
    write: DatasetWriter, found: dict[str, Found], workers: int, skip: bool
) -> tuple[dict[str, int], list[str]]:
    """Write every image that was found; gives what was said of each one left out."""
    skipped: list[str] = []
    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("images,"),
        TimeRemainingColumn(),
    )  # fmt: skip
    try:
        with Progress(*columns) as progress:
            task = progress.add_task(f"importing {write.name}", total=sum(len(part.paths) for part in found.values()))
            for split, (paths, labels, _) in found.items():
                advance = partial(progress.advance, task)
                write(split, _decode(paths, labels, write.image_size, workers, skipped if skip else None, advance))
    except (RuntimeError, MemoryError) as error:
        if "DataLoader worker" not in str(error) and not isinstance(error, MemoryError):
            raise
        raise SelfieLiteError(
            "the import ran out of memory or shared memory (/dev/shm), or one of its processes was killed. Nothing was "
            f"imported. Try fewer than --workers {workers}; 0 reads in this process alone."
        ) from None
    return skipped


def _decode(
    paths: FileNames,
    labels: np.ndarray,
    size: int,
    workers: int,
    skipped: list[str] | None,
    advance: Callable[[int], None],
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    loader = DataLoader(
        _Decoder(paths, labels, size), BATCH, num_workers=workers, collate_fn=_pack, generator=torch.Generator()
    )
    kept = 0
    for read, images, batch_labels, unreadable in loader:
        if unreadable and skipped is None:
            raise UnreadableImageError(
                f"{unreadable[0]} Nothing was imported; --skip-unreadable leaves such files out."
            )
        if unreadable:
            skipped.extend(unreadable)
        if images is not None:
            kept += len(images)
            yield images, batch_labels
        advance(read)
    if not kept:
        raise UnreadableImageError(f"none of the {len(paths)} images could be read; the first: {skipped[0]}")


def _require_workers(workers: int | None) -> int:
    if workers is None:
        return min(os.cpu_count() or 1, 8)
    if isinstance(workers, bool) or not isinstance(workers, int) or not 0 <= workers <= 256:
        raise SelfieLiteError(f"--workers is a number of processes, 0 to 256, but is {workers!r}.")
    return workers


def _require_free(name: str, replace: bool) -> None:
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
    ours = {"dataset.json", *(f"{split}_{rest}" for split in SPLITS for rest in ("images.bin", "labels.npy"))}
    others = [path.name for path in place.iterdir() if path.name not in ours] if place.is_dir() else [""]
    if others := [path for path in others if not is_hidden(path)]:
        raise SelfieLiteError(
            f"{place} is no import{others[0] and f' (it holds {printable(others[0])})'}, and is not replaced: choose "
            "another name, or move it away."
        )
