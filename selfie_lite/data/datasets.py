"""Data sets: uint8 images and integer labels, by name or from any folder of images."""

import json
import os
import re
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
import torchvision
from PIL import Image, ImageOps
from torch import Tensor
from torchvision.datasets.folder import IMG_EXTENSIONS, make_dataset

from selfie_lite.errors import DatasetNotFoundError, SelfieLiteError, UnreadableImageError, require_choice, suggestion

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
        return self.images[indices], self.labels[indices]

    @property
    def image_size(self) -> int:
        return self.images.shape[-1]


@dataclass
class ImageFiles:
    """A split of a data set whose images are read from their files each time they are asked for."""

    name: str
    split: str
    paths: list[str]
    labels: Tensor  # (n,) int64
    classes: list[str]
    image_size: int

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        pixels = read_image(self.paths[index], self.image_size)
        return torch.from_numpy(pixels).permute(2, 0, 1).contiguous(), int(self.labels[index])

    def batch(self, indices) -> tuple[Tensor, Tensor]:
        """As `ImageDataset.batch`."""
        chosen = torch.arange(len(self))[indices]
        return torch.stack([self[int(i)][0] for i in chosen]), self.labels[chosen]


def load_dataset(
    name_or_folder: str | Path, split: str = "train", image_size: int | None = None, download: bool = True
) -> ImageDataset | ImageFiles:
    """Load one split of a data set.

    Args:
        name_or_folder: "sample", "photos", "cifar10", "imagenette", "imagenet", the name of an import, or a folder
            of images: FOLDER/train/CLASS/*, FOLDER/CLASS/* or FOLDER/*, with test/ or val/ beside train/ for tests.
        split: "train" or "test".
        image_size: height and width in pixels of images read from a folder (shorter side resized to this, then
            cropped at the centre). Default 224. Data sets kept as arrays have one size of their own.
        download: fetch "cifar10" or "imagenette" through torchvision if it is not there.

    Returns:
        A data set with `len`, `[index]`, `batch(indices)`, `labels`, `classes` and `image_size`.

    Raises:
        DatasetNotFoundError: if it is not on this machine and could not be downloaded.
        SelfieLiteError: for an unknown name or split, an empty folder, or a size it does not have.
    """
    require_choice("split", split, SPLITS)
    if image_size is not None and image_size < 1:
        raise SelfieLiteError(f"image_size is a number of pixels, 1 or more, but is {image_size}.")
    name = str(name_or_folder)
    if name in ("sample", "photos"):
        dataset = _load_sample(split) if name == "sample" else _load_photos(split)
    elif (data_cache() / name / "dataset.json").is_file() and is_plain_name(name):
        dataset = _load_arrays(name, split)
    elif name == "imagenet":
        return _load_imagenet(split, image_size or 224)
    elif name in KNOWN:
        if not download:
            raise DatasetNotFoundError(how_to_get(name))
        from selfie_lite.data.importing import download_dataset

        download_dataset(name)
        dataset = _load_arrays(name, split)
    elif Path(name).expanduser().is_dir():
        return _load_folder(Path(name).expanduser(), split, image_size or 224)
    else:
        known = sorted({*KNOWN, *(path.parent.name for path in data_cache().glob("*/dataset.json"))})
        raise DatasetNotFoundError(f"there is no data set and no folder '{name}'.{suggestion(name, known)}")
    if image_size not in (None, dataset.image_size):
        raise SelfieLiteError(
            f"'{name}' is stored at {dataset.image_size}×{dataset.image_size} pixels, but {image_size} were asked for. "
            f"Import it at that size: selfie-lite data import NAME FOLDER --size {image_size}"
        )
    return dataset


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


def read_image(path: str | Path | BinaryIO, image_size: int | None = None, name: str = "") -> np.ndarray:
    """Read one image file as RGB, upright: grey, palette, CMYK and 16-bit images are converted, transparent ones laid
    on white, EXIF rotation applied.

    Args:
        path: of the file, or the open file itself.
        image_size: if given, the shorter side is resized to this many pixels and the centre is cut out.
        name: what errors call the file. Default: its path.

    Returns:
        (H, W, 3) uint8.

    Raises:
        UnreadableImageError: if the file is no image, is cut short, or has so many pixels that it may be a
            decompression bomb (Pillow's limit).
    """
    name = name or path
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as file:
                image = _to_rgb(ImageOps.exif_transpose(file))
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        limit = f"{Image.MAX_IMAGE_PIXELS:,}"
        raise UnreadableImageError(f"{name}: refused, it unpacks to more than {limit} pixels.") from None
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        reason = "it is no image that Pillow knows" if isinstance(error, Image.UnidentifiedImageError) else error
        raise UnreadableImageError(f"{name}: cannot be read ({reason}).") from None
    if image_size is not None:
        image = ImageOps.fit(image, (image_size, image_size), Image.Resampling.BICUBIC)
    return np.array(image)


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16-bit grey, 0 to 65,535
        image = Image.fromarray((np.asarray(image, dtype=np.float64) / 257).round().clip(0, 255).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def find_images(folder: Path) -> dict[str, tuple[list[str], list[int], list[str]]]:
    """The images below `folder`, as {split: (paths, labels, classes)}. Folders of one split are all "train".

    Raises:
        SelfieLiteError: if there are none, or they lie where it is unclear which class they belong to.
    """
    roots = {"train": folder}
    if not (folder / "train").is_dir() and (stray := [n for n in ("test", "val") if (folder / n).is_dir()]):
        raise SelfieLiteError(f"{folder} has a folder {stray[0]}/ but no train/: name the other one train.")
    if (folder / "train").is_dir():
        tests = [folder / name for name in ("test", "val") if (folder / name).is_dir()]
        roots = {"train": folder / "train"} | {"test": test for test in tests[:1]}  # noqa: B035
    found, classes = {}, None
    for split, root in roots.items():
        paths, labels, names = _find_classes(root)
        if classes is not None and (extra := sorted(set(names) - set(classes))):
            raise SelfieLiteError(f"{root} has classes that {roots['train']} lacks: {', '.join(extra[:5])}.")
        if classes is not None and names != classes:
            labels = [classes.index(names[label]) for label in labels]
        classes = classes or names
        found[split] = paths, labels, classes
    return found


def _find_classes(root: Path) -> tuple[list[str], list[int], list[str]]:
    loose = sorted(str(p) for p in root.iterdir() if p.suffix.lower() in IMG_EXTENSIONS and not p.name.startswith("."))
    names = sorted(p.name for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))
    ending = tuple(IMG_EXTENSIONS)
    samples = make_dataset(str(root), {n: i for i, n in enumerate(names)}, ending, allow_empty=True) if names else []
    samples = [(path, label) for path, label in samples if "/." not in Path(path).relative_to(root).as_posix()]
    if loose and samples:
        raise SelfieLiteError(
            f"{root} holds {len(loose)} images beside its class folders, the first {loose[0]}. "
            "Move them into the folder of their class, or out of the way."
        )
    if not loose and not samples:
        raise SelfieLiteError(
            f"no images in {root}. Looked for {', '.join(IMG_EXTENSIONS)} in it and in its sub-folders, one a class."
        )
    if loose:
        return loose, [0] * len(loose), ["unlabelled"]
    present = sorted({label for _, label in samples})
    labels = [present.index(label) for _, label in samples]
    return [path for path, _ in samples], labels, [names[label] for label in present]


def _load_sample(split: str) -> ImageDataset:
    """The bundled sheet is a mosaic of 32×32 tiles, row by row; tile i belongs to class i mod 10."""
    folder = BUNDLED / "sample"
    description = _read_description(folder)
    sheet = torch.from_numpy(read_image(folder / f"{split}.webp"))  # (rows·32, columns·32, 3)
    tiles = sheet.unflatten(1, (-1, 32)).unflatten(0, (-1, 32))  # (rows, 32, columns, 32, 3)
    images = tiles.permute(0, 2, 4, 1, 3).flatten(0, 1).contiguous()  # (n, 3, 32, 32)
    return ImageDataset("sample", split, images, torch.arange(len(images)) % 10, description["classes"])


def _load_photos(split: str) -> ImageDataset:
    folder = BUNDLED / "photos"
    classes = _read_description(folder)["classes"]
    if split != "train":
        raise SelfieLiteError('the ten photos have no test part: load_dataset("photos").')
    images = torch.stack([torch.from_numpy(read_image(folder / f"{name}.jpg")).permute(2, 0, 1) for name in classes])
    return ImageDataset("photos", split, images.contiguous(), torch.arange(len(images)), classes)


def _load_arrays(name: str, split: str) -> ImageDataset:
    folder = data_cache() / name
    description = _read_description(folder)
    if split not in description["counts"]:
        raise SelfieLiteError(
            f"'{name}' was imported without a {split} part; it has {', '.join(description['counts'])}."
        )
    count, size = description["counts"][split], description["image_size"]
    shape = (count, 3, size, size)
    path = folder / f"{split}_images.bin"
    try:
        labels = torch.from_numpy(np.load(folder / f"{split}_labels.npy"))
        whole = len(labels) == count and path.stat().st_size == np.prod(shape, dtype=np.int64)
    except (OSError, ValueError, EOFError):
        whole = False
    if not whole:
        raise SelfieLiteError(
            f"{folder} is damaged (`selfie-lite data verify {name}` names the files). "
            f"Import it again: selfie-lite data import {name} FOLDER --replace"
        )
    images = torch.from_numpy(np.memmap(path, dtype=np.uint8, mode="c", shape=shape))  # a private view of the file
    return ImageDataset(name, split, images, labels, description["classes"])


def _load_folder(folder: Path, split: str, image_size: int) -> ImageFiles:
    found = find_images(folder)
    if split not in found:
        raise SelfieLiteError(f"{folder} has no test part: put images into {folder / 'test'} or {folder / 'val'}.")
    paths, labels, classes = found[split]
    return ImageFiles(str(folder), split, paths, torch.tensor(labels), classes, image_size)


def _load_imagenet(split: str, image_size: int) -> ImageFiles:
    root = data_cache() / "imagenet"
    if not root.is_dir():
        raise DatasetNotFoundError(how_to_get("imagenet"))
    try:
        folder = torchvision.datasets.ImageNet(root, split="train" if split == "train" else "val")
    except (RuntimeError, OSError, ImportError) as error:  # ImportError: torchvision reads the devkit with SciPy
        raise DatasetNotFoundError(f"{root} is not laid out as expected: {error}\n{how_to_get('imagenet')}") from None
    paths, labels = zip(*folder.samples, strict=True)
    classes = [names[0] for names in folder.classes]
    return ImageFiles("imagenet", split, list(paths), torch.tensor(labels), classes, image_size)


def _read_description(folder: Path) -> dict:
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
