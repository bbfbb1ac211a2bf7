"""Turn a folder of images, or a download, into arrays in data_cache/, once; and check them later."""

import errno
import hashlib
import json
import os
import platform
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torchvision
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch.utils.data import DataLoader, Dataset

from selfie_lite.data.datasets import BUNDLED, KNOWN, data_cache, find_images, how_to_get, is_plain_name, read_image
from selfie_lite.errors import DatasetNotFoundError, SelfieLiteError, UnreadableImageError, suggestion

BATCH = 64  # images that a worker process hands over at a time
OLD = "_old"  # ends the name of a data set that is being replaced


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
    folder = Path(folder).expanduser()
    if not folder.is_dir():
        raise SelfieLiteError(f"there is no folder {folder}.")
    size = image_size if image_size is not None else 32 if name == "cifar10" else 224
    if size < 1:
        raise SelfieLiteError(f"--size is a number of pixels, 1 or more, but is {size}.")
    workers = min(os.cpu_count() or 1, 8) if workers is None else workers
    found = find_images(folder)
    total = sum(len(paths) for paths, _, _ in found.values())
    classes = found["train"][2]
    skipped: list[str] = []
    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("images,"),
        TimeRemainingColumn(),
    )
    with dataset_writer(name, size, classes, bytes_needed=total * 3 * size**2, replace=replace) as write, progress:
        task = progress.add_task(f"importing {name}", total=total)
        for split, (paths, labels, _) in found.items():
            advance = partial(progress.advance, task)
            write(split, _decode(paths, labels, size, workers, skipped if skip_unreadable else None, advance))
        counts = write.counts
    return counts, skipped


def download_dataset(name: str, replace: bool = False) -> dict[str, int]:
    """Fetch "cifar10" (170 MB) or "imagenette" (340 MB) through torchvision and keep it in data_cache/.

    Raises:
        DatasetNotFoundError: if it cannot be fetched, with the way to bring it by hand.
    """
    if name not in ("cifar10", "imagenette"):
        ways = how_to_get(name) if name in KNOWN else suggestion(name, ["cifar10", "imagenette"]).strip()
        raise DatasetNotFoundError(f"'{name}' cannot be downloaded. {ways}")
    _refuse_taken(name, replace)
    with _work_folder(name, bytes_needed=0) as raw:
        try:
            if name == "cifar10":
                sets = {s: torchvision.datasets.CIFAR10(raw, s == "train", download=True) for s in ("train", "test")}
            else:
                for split in ("train", "val"):
                    torchvision.datasets.Imagenette(raw, split, size="320px", download=True)
        except (OSError, RuntimeError) as error:
            raise DatasetNotFoundError(f"the download of {name} failed: {error}\n{how_to_get(name)}") from None
        if name == "imagenette":
            return import_folder(name, next(raw.glob("imagenette2*/")), replace=replace)[0]
        needed = sum(dataset.data.nbytes for dataset in sets.values())
        with dataset_writer(name, 32, sets["train"].classes, needed, replace) as write:
            for split, dataset in sets.items():
                write(split, [(dataset.data.transpose(0, 3, 1, 2), np.array(dataset.targets))])
            return write.counts


@contextmanager
def dataset_writer(name: str, image_size: int, classes: list[str], bytes_needed: int, replace: bool = False):
    """Gives a function write(split, batches of (images (B, 3, H, W) uint8, labels (B,))); the data set appears under
    its name when the block ends, and nothing of it does if the block fails."""
    _refuse_taken(name, replace)
    with _work_folder(name, bytes_needed) as folder:
        write = _Writer(folder)
        yield write
        description = {"name": name, "image_size": image_size, "classes": list(classes)}
        description |= {"counts": write.counts, "sha256": write.sha256}
        _write_durably(folder / "dataset.json", [json.dumps(description, indent=1).encode()])
        _move_into_place(folder, data_cache() / name)


@contextmanager
def _work_folder(name: str, bytes_needed: int) -> Iterator[Path]:
    """A hidden folder in data_cache/ that is gone when the block ends, however it ends. What killed imports of this
    name left behind is cleared away first."""
    cache = data_cache()
    mine = f".importing-{name}-{platform.node()}"
    folder = None
    try:
        cache.mkdir(parents=True, exist_ok=True)
        for leftover in cache.glob(f"{mine}-*-*"):
            stem, pid, _ = leftover.name.rsplit("-", 2)
            if stem != mine or _is_running(pid):
                continue
            if leftover.name.endswith(OLD) and not (cache / name).exists():
                os.replace(leftover, cache / name)  # killed between the two renames of _move_into_place
            shutil.rmtree(leftover, ignore_errors=True)
        free = shutil.disk_usage(cache).free
        if bytes_needed > free:
            raise SelfieLiteError(
                f"'{name}' takes {bytes_needed / 1e9:.1f} GB, but {cache} has {free / 1e9:.1f} GB left. "
                "Make room, or point SELFIE_LITE_DATA at another disk."
            )
        folder = Path(tempfile.mkdtemp(prefix=f"{mine}-{os.getpid()}-", dir=cache))
        folder.chmod(0o755)
        yield folder
    except PermissionError as error:
        raise SelfieLiteError(
            f"{error.filename or cache} cannot be written. Point SELFIE_LITE_DATA at a folder of your own."
        ) from None
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        raise SelfieLiteError(
            f"the disk of {cache} is full. Nothing of '{name}' was kept and nothing else was touched. "
            "Make room, or point SELFIE_LITE_DATA at another disk."
        ) from None
    finally:
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)


class _Writer:
    def __init__(self, folder: Path):
        self.folder, self.counts, self.sha256 = folder, {}, {}

    def __call__(self, split: str, batches: Iterable[tuple[np.ndarray, np.ndarray]]) -> None:
        labels: list[np.ndarray] = []

        def pixels() -> Iterator[bytes]:
            for images, batch_labels in batches:
                labels.append(batch_labels)
                yield np.ascontiguousarray(images).tobytes()

        images_file, labels_file = f"{split}_images.bin", f"{split}_labels.npy"
        self.sha256[images_file] = _write_durably(self.folder / images_file, pixels())
        all_labels = np.concatenate(labels).astype(np.int64)
        np.save(self.folder / labels_file, all_labels)
        self.sha256[labels_file] = file_sha256(self.folder / labels_file)
        self.counts[split] = len(all_labels)


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
        if not (folder / file).is_file() or file_sha256(folder / file) != expected
    ]


def file_sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class _Decoder(Dataset):
    """Reads one image; gives what was wrong, as text, in place of an image that cannot be read."""

    def __init__(self, paths: list[str], labels: list[int], size: int):
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


def _decode(
    paths: list[str],
    labels: list[int],
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


def _refuse_taken(name: str, replace: bool) -> None:
    if not is_plain_name(name):
        raise SelfieLiteError(f"'{name}' cannot name a data set: use letters, digits, - and _.")
    if name in ("sample", "photos"):
        raise SelfieLiteError(f"'{name}' is bundled with the workbook: choose another name.")
    if (data_cache() / name).exists() and not replace:
        raise SelfieLiteError(
            f"{data_cache() / name} is already there. To put the new one in its place, add --replace."
        )


def _is_running(pid: str) -> bool:
    try:
        os.kill(int(pid), 0)
    except (ValueError, OverflowError, ProcessLookupError):
        return False
    except PermissionError:
        pass
    return True


def _move_into_place(folder: Path, place: Path) -> None:
    old = folder.with_name(folder.name + OLD)
    taken = place.is_symlink() or place.exists()
    if taken:
        os.replace(place, old)
    try:
        os.replace(folder, place)
    except OSError:
        if taken:
            os.replace(old, place)
        raise
    if old.is_symlink():
        old.unlink()
    shutil.rmtree(old, ignore_errors=True)


def _write_durably(path: Path, chunks: Iterable[bytes]) -> str:
    """Write the chunks, wait until they are on the disk, give their SHA-256."""
    digest = hashlib.sha256()
    with open(path, "wb") as file:
        for chunk in chunks:
            file.write(chunk)
            digest.update(chunk)
        file.flush()
        os.fsync(file.fileno())
    return digest.hexdigest()
