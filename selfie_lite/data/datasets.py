"""A split of a data set: uint8 images and integer labels, by name or from any folder of images."""

import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torchvision
from torch import Tensor

from selfie_lite.data.catalog import (
    BUNDLED,
    KNOWN,
    SPLITS,
    data_cache,
    how_to_get,
    installed_datasets,
    is_plain_name,
    no_folder,
    read_description,
    require_pixels,
)
from selfie_lite.data.folders import FileNames, PackedFiles
from selfie_lite.data.images import find_images, read_image
from selfie_lite.data.importing import download_dataset
from selfie_lite.errors import DatasetNotFoundError, SelfieLiteError, require_choice


@dataclass
class ImageDataset:
    """A split of a data set whose images lie in memory, or in a file mapped into it."""

    name: str
    split: str
    images: Tensor  # (n, 3, H, W) uint8
    labels: Tensor  # (n,) int64
    classes: list[str]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.images[index], int(self.labels[index])

    def batch(self, indices) -> tuple[Tensor, Tensor]:
        """Images (B, 3, H, W) uint8 and labels (B,) int64 at `indices`, a slice or a list of ints."""
        with _numbers_in_words(self):
            return self.images[indices], self.labels[indices]

    @property
    def image_size(self) -> int:
        return self.images.shape[-1]


@dataclass
class ImageFiles:
    """A split of a data set whose images are read from their files each time they are asked for, at any size."""

    name: str
    split: str
    paths: Sequence[str] | PackedFiles  # names are kept as one array of bytes
    labels: Tensor  # (n,) int64
    classes: list[str]
    image_size: int

    def __post_init__(self):
        if not isinstance(self.paths, FileNames | PackedFiles):
            self.paths = FileNames(self.paths)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        images, labels = self.batch([index])
        return images[0].contiguous(), int(labels[0])

    def batch(self, indices: slice | Sequence[int] | Tensor, drawn: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """As `ImageDataset.batch`, in channels-last memory.

        Args:
            drawn: (B, 5) in [0, 1): for random crops of the whole images, see `read_image`. Default: their middle.
        """
        with _numbers_in_words(self):
            chosen = torch.arange(len(self))[indices].tolist()
        crops = [None] * len(chosen) if drawn is None else drawn.tolist()
        pixels = [read_image(self.paths[i], self.image_size, drawn=c) for i, c in zip(chosen, crops, strict=True)]
        return torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2), self.labels[chosen]


@contextmanager
def _numbers_in_words(dataset: ImageDataset | ImageFiles) -> Iterator[None]:
    try:
        yield
    except IndexError:
        last = len(dataset) - 1
        raise SelfieLiteError(f"{dataset.name} has no image of such a number: they go from 0 to {last}.") from None


def load_dataset(
    name_or_folder: str | os.PathLike, split: str = "train", image_size: int | None = None, download: bool = True
) -> ImageDataset | ImageFiles:
    """Load one split of a data set.

    Args:
        name_or_folder: "sample", "photos", "cifar10", "imagenette", "imagenet", the name of an import, or a folder
            of images: FOLDER/train/CLASS/*, FOLDER/CLASS/* or FOLDER/*, with test/ or val/ beside train/ for tests.
        split: "train" or "test".
        image_size: height and width in pixels of images read from files, see `read_image`. Default 224. Data sets kept
            as arrays (up to 64 pixels) have one size of their own.
        download: fetch "cifar10" or "imagenette" through torchvision if it is not there.

    Returns:
        A data set with `len`, `[index]`, `batch(indices)`, `labels`, `classes` and `image_size`.

    Raises:
        DatasetNotFoundError: if it is not on this machine and could not be downloaded.
        SelfieLiteError: for an unknown name or split, an empty folder, or a size it does not have.
    """
    require_choice("split", split, SPLITS)
    if image_size is not None:
        image_size = require_pixels("image_size", image_size)
    if not isinstance(name_or_folder, str | os.PathLike) or not os.fspath(name_or_folder):
        raise SelfieLiteError(f"give the name of a data set or a folder of images, not {name_or_folder!r}.")
    name = os.fspath(name_or_folder)
    folder = os.path.expanduser(name)
    dataset: ImageDataset | ImageFiles
    if name in ("sample", "photos"):
        dataset = _load_sample(split) if name == "sample" else _load_photos(split)
    elif is_plain_name(name) and (data_cache() / name / "dataset.json").is_file():
        dataset = _load_import(name, split, image_size)
    elif name == "imagenet":
        return _load_imagenet(split, image_size or 224)
    elif name in KNOWN:
        if not download:
            raise DatasetNotFoundError(how_to_get(name))
        download_dataset(name)
        dataset = _load_import(name, split, image_size)
    elif os.path.isdir(folder):
        paths, labels, classes = find_images(Path(folder), split)[split]
        return ImageFiles(folder, split, paths, torch.from_numpy(labels), classes, image_size or 224)
    else:
        raise no_folder("data set and no folder", folder, sorted({*KNOWN, *installed_datasets()}))
    if image_size not in (None, dataset.image_size):
        raise SelfieLiteError(
            f"'{name}' is stored at {dataset.image_size}×{dataset.image_size} pixels, but {image_size} were asked for. "
            f"Import it at that size: selfie-lite data import NAME FOLDER --size {image_size}"
        )
    return dataset


def _load_sample(split: str) -> ImageDataset:
    """The bundled sheet is a mosaic of 32×32 tiles, row by row; tile i belongs to class i mod 10."""
    folder = BUNDLED / "sample"
    description = read_description(folder)
    sheet = torch.from_numpy(read_image(folder / f"{split}.webp"))  # (rows·32, columns·32, 3)
    tiles = sheet.unflatten(1, (-1, 32)).unflatten(0, (-1, 32))  # (rows, 32, columns, 32, 3)
    images = tiles.permute(0, 2, 4, 1, 3).flatten(0, 1).contiguous()  # (n, 3, 32, 32)
    return ImageDataset("sample", split, images, torch.arange(len(images)) % 10, description["classes"])


def _load_photos(split: str) -> ImageDataset:
    folder = BUNDLED / "photos"
    classes = read_description(folder)["classes"]
    if split != "train":
        raise SelfieLiteError('the ten photos have no test part: load_dataset("photos").')
    images = torch.stack([torch.from_numpy(read_image(folder / f"{name}.jpg")).permute(2, 0, 1) for name in classes])
    return ImageDataset("photos", split, images.contiguous(), torch.arange(len(images)), classes)


def _load_import(name: str, split: str, image_size: int | None) -> ImageDataset | ImageFiles:
    folder = data_cache() / name
    description = read_description(folder)
    if split not in description["counts"]:
        raise SelfieLiteError(
            f"'{name}' was imported without a {split} part; it has {', '.join(description['counts'])}."
        )
    count, size, classes = description["counts"][split], description["image_size"], description["classes"]
    shape = (count, 3, size, size)
    path, packed = folder / f"{split}_images.bin", f"{split}_ends.npy" in description["sha256"]
    labels = _whole_numbers(folder / f"{split}_labels.npy")
    ends = _whole_numbers(folder / f"{split}_ends.npy") if packed else np.array([math.prod(shape)])
    whole = len(labels) == count and 0 <= labels.min() and labels.max() < len(classes) and path.is_file()
    whole = whole and len(ends) == (count if packed else 1) and ends[0] > 0 and bool((np.diff(ends) > 0).all())
    if not whole or path.stat().st_size != ends[-1]:
        raise SelfieLiteError(
            f"{folder} is damaged (`selfie-lite data verify {name}` names the files). "
            f"Import it again: selfie-lite data import {name} FOLDER --replace"
        )
    if packed:
        files = PackedFiles(path, ends)
        return ImageFiles(name, split, files, torch.from_numpy(labels), classes, image_size or size)
    images = torch.from_numpy(np.memmap(path, dtype=np.uint8, mode="c", shape=shape))  # a private view of the file
    return ImageDataset(name, split, images, torch.from_numpy(labels), classes)


def _whole_numbers(path: Path) -> np.ndarray:
    """The array (n,) int64 in a file; an empty one if there is none such."""
    try:
        values = np.load(path) if path.is_file() else np.empty(0)
        if values.ndim == 1 and values.dtype.kind in "iu":
            return values.astype(np.int64)
    except Exception:  # NumPy raises many kinds of error over a damaged file
        pass
    return np.empty(0, np.int64)


def _load_imagenet(split: str, image_size: int) -> ImageFiles:
    root = data_cache() / "imagenet"
    if not root.is_dir():
        raise DatasetNotFoundError(how_to_get("imagenet"))
    try:
        folder = torchvision.datasets.ImageNet(root, split="train" if split == "train" else "val")
    except Exception as error:  # of many kinds: a damaged archive or meta.bin, a class that it does not name, no SciPy
        raise DatasetNotFoundError(f"{root} is not laid out as expected: {error}\n{how_to_get('imagenet')}") from None
    paths, labels = zip(*folder.samples, strict=True)
    classes = [names[0] for names in folder.classes]
    return ImageFiles("imagenet", split, FileNames(paths), torch.tensor(labels), classes, image_size)
