"""Reading one image file, and finding the image files of a folder."""

import warnings
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps
from torchvision.datasets.folder import IMG_EXTENSIONS, make_dataset

from selfie_lite.errors import SelfieLiteError, UnreadableImageError


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
