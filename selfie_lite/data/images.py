"""Reading one image file, and finding the image files of a folder: which are for training, which for tests."""

import io
import os
import stat
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, PngImagePlugin

from selfie_lite.data.folders import UNLABELLED, Found, Walk, list_folder, say
from selfie_lite.errors import SelfieLiteError, UnreadableImageError
from selfie_lite.files import printable

TRAIN, TEST, VALIDATION = ("train", "training"), ("test", "testing"), ("val", "valid", "validation")
ORIENTATION = 0x0112  # the EXIF tag; the other tags may be of any wrong type, and are not looked at
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # fmt: skip
WHITE = (1, 255, 1023, 4095, 16383, 65535)  # what is white, by the number of bits that cameras and programs use
SMALL = 64  # of images up to so many pixels a side the whole is shown, larger ones are cut out of a little more
PROFILE_BYTES = 256 << 20  # Pillow's own limit for unpacked profiles and comments of a PNG is 1 MB


def read_image(
    path: str | Path | BinaryIO, image_size: int | None = None, name: str = "", drawn: Sequence[float] | None = None
) -> np.ndarray:
    """Read one image file as RGB, upright: grey, palette and CMYK images are converted, transparent ones laid on white,
    16-bit, 32-bit and float ones scaled to 0 to 255, and the EXIF orientation applied. Of several frames, the first.

    Args:
        path: of the file, or the open file itself.
        image_size: if given, the image is made so high and wide in one step: of `drawn` numbers a random crop, else its
            middle: of images up to 64 pixels all of the shorter side, of larger ones 7/8 of it (256 → 224).
        name: what errors call the file. Default: its path.
        drawn: five numbers in [0, 1) that say which crop: see `_rectangle`.

    Returns:
        (H, W, 3) uint8.

    Raises:
        UnreadableImageError: if it is no regular file, no image, cut short, or has so many pixels that it may be a
            decompression bomb (Pillow's limit).
    """
    if not name:
        name = printable(path if isinstance(path, str | os.PathLike) else getattr(path, "name", "an open file"))
    try:
        if not isinstance(path, str | os.PathLike):
            return _read(path, image_size, drawn)
        with open(path, "rb", opener=_without_waiting) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise ValueError("it is no regular file")
            return _read(file, image_size, drawn)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        reason = f"refused, it unpacks to more than {Image.MAX_IMAGE_PIXELS:,} pixels"
    except Image.UnidentifiedImageError:
        reason = "cannot be read (it is no image that Pillow knows)"
    except Exception as error:  # Pillow's readers raise whatever the bytes of a damaged file lead them to
        said = error.strerror.lower() if isinstance(error, OSError) and error.strerror else str(error)
        reason = f"cannot be read ({said or type(error).__name__})"
    raise UnreadableImageError(f"{name}: {reason}.")


def file_bytes(path: str, most: int) -> bytes:
    """The bytes of an image file that can be read; of a picture whose shorter side has more than `most` pixels, a JPEG
    with so many.

    Raises:
        UnreadableImageError: as `read_image`.
    """
    pixels = read_image(path)
    short = min(pixels.shape[:2])
    if short <= most:
        return Path(path).read_bytes()
    width, height = (round(side * most / short) for side in pixels.shape[1::-1])
    smaller = io.BytesIO()
    Image.fromarray(pixels).resize((width, height), Image.Resampling.LANCZOS).save(smaller, "JPEG", quality=95)
    return smaller.getvalue()


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))  # a FIFO would wait for its writer


def _read(file: BinaryIO, image_size: int | None, drawn: Sequence[float] | None) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            return _decode(file, image_size, drawn)
        except ValueError as error:
            if "MAX_TEXT" not in str(error):
                raise
            file.seek(0)
            with _large_profiles():
                return _decode(file, image_size, drawn)


@contextmanager
def _large_profiles() -> Iterator[None]:
    """A PNG may carry more colour profile or text than Pillow unpacks by itself; the picture is whole."""
    limits = PngImagePlugin.MAX_TEXT_CHUNK, PngImagePlugin.MAX_TEXT_MEMORY
    PngImagePlugin.MAX_TEXT_CHUNK = PngImagePlugin.MAX_TEXT_MEMORY = PROFILE_BYTES
    try:
        yield
    finally:
        PngImagePlugin.MAX_TEXT_CHUNK, PngImagePlugin.MAX_TEXT_MEMORY = limits


def _decode(file: BinaryIO, image_size: int | None, drawn: Sequence[float] | None) -> np.ndarray:
    with Image.open(file, formats=_formats()) as image:
        if image_size is not None:  # JPEG alone can be decoded at 1/2, 1/4, 1/8 of its size
            left, top, right, bottom = _rectangle(*image.size, image_size, drawn)
            spare = min(right - left, bottom - top) / image_size
            if spare >= 2:
                image.draft(None, (int(image.width / spare), int(image.height / spare)))
        image.load()  # TIFF and AVIF turn themselves here
        try:
            turn = UPRIGHT.get(image.getexif().get(ORIENTATION, 1))
        except Exception:  # an EXIF block that is no such thing: the picture does not depend on it
            turn = None
        rgb = _to_rgb(image)
    if image_size is not None:
        kind = Image.Resampling.BICUBIC if drawn is None else Image.Resampling.BILINEAR
        rgb = rgb.resize((image_size, image_size), kind, _rectangle(*rgb.size, image_size, drawn))
    upright = np.array(rgb if turn is None else rgb.transpose(turn))
    return upright[:, ::-1] if drawn is not None and drawn[4] < 0.5 else upright


def _rectangle(
    width: int, height: int, image_size: int, drawn: Sequence[float] | None
) -> tuple[float, float, float, float]:
    """The part of an image that is shown, in its pixels: left, top, right, bottom. If numbers were drawn, 8 % to 100 %
    of its area, 3:4 to 4:3 in shape, anywhere, as `augment.random_resized_crop_flip`; else the middle."""
    if drawn is None:
        w = h = min(width, height) * (1 if image_size <= SMALL else 7 / 8)
        x = y = 0.5
    else:
        area, shape, x, y, _ = drawn
        area, shape = (0.08 + 0.92 * area) * width * height, (4 / 3) ** (2 * shape - 1)
        w, h = min((area * shape) ** 0.5, width), min((area / shape) ** 0.5, height)
    left, top = x * (width - w), y * (height - h)
    return left, top, left + w, top + h


@cache
def _formats() -> tuple[str, ...]:
    Image.preinit()
    Image.init()
    return tuple(kind for kind in Image.OPEN if kind != "EPS")  # EPS is a program, which Ghostscript would run


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode[0] in "IF":  # 16 or 32 bits, whole numbers or floats: Pillow's own conversion clips them
        deep = image.mode.startswith("I;16") and image.format != "TIFF" or image.format == "PNG"
        image = Image.fromarray(_to_8_bits(np.asarray(image, dtype=np.float64), 65535 if deep else None))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def _to_8_bits(values: np.ndarray, white: float | None) -> np.ndarray:
    """Scale to 0 to 255. Where the file does not say what is white, it is the least of WHITE that holds all values, if
    some come near it; else the greatest value. Values below 0 or above 65,535 are scaled from least to greatest."""
    low, high = values.min(), values.max()
    if not np.isfinite(high - low):
        raise ValueError("it holds values that are no finite numbers")
    if white is None and 0 <= low and high <= WHITE[-1]:
        white = next(white for white in WHITE if high <= white)
        white = white if 4 * high >= white or high == 0 else high
    if white is None:
        values, white = values - low, (high - low) or 2 * (low - low + 1)
    return (values * (255 / white)).round().clip(0, 255).astype(np.uint8)


def find_images(folder: Path, split: str | None = None) -> dict[str, Found]:
    """The images below `folder`, as {split: (paths, labels, classes)}; of both splits, or of the one asked for. Folders
    of one split are all "train". What was passed over is logged as a warning.

    Raises:
        SelfieLiteError: if there are none, or it is unclear which class or which split they belong to.
    """
    parts = _parts(str(folder))
    if split is not None and split not in parts:
        raise SelfieLiteError(f"{folder} has no {split} part: put images into {folder / 'test'} or {folder / 'val'}.")
    roots = [os.path.realpath(root) for root in parts.values()]
    folders = [os.path.join(root, "") for root in roots]
    if len(parts) > 1 and any(one.startswith(other) for one, other in (folders, folders[::-1])):
        raise SelfieLiteError(f"{parts['train']} and {parts['test']} are the same images: a link leads to the other.")
    refused = {"train": TEST + VALIDATION + (TRAIN if len(parts) == 1 else ()), "test": ()}
    walks = {name: Walk(root, roots, refused[name]) for name, root in parts.items()}
    found = {name: walk.found() for name, walk in walks.items() if split in (None, name)}
    if len(parts) > 1:
        classes = {name: found[name].classes if name in found else walks[name].class_names() for name in parts}
        _require_known(parts, classes)
        if "test" in found:  # labels count the classes of the training part
            paths, labels, names = found["test"]
            places = np.array([classes["train"].index(name) for name in names])
            found["test"] = Found(paths, places[labels], classes["train"])
        _require_apart(walks, set(parts) - set(found))
    for name in found:
        walks[name].say_what_was_passed_over()
    return found


def _parts(folder: str) -> dict[str, str]:
    """Where the images for training and for tests lie: in `folder`, or in the only folder there."""
    top = folder
    for _ in range(4):
        images, folders, _, _ = list_folder(top)
        parts = _named_parts(top, images, folders)
        if parts["train"] != top:
            return parts
        if images or len(folders) != 1:
            break
        top = os.path.join(top, folders[0])
    return {"train": folder}


def _named_parts(top: str, images: list[str], folders: list[str]) -> dict[str, str]:
    """The sub-folders that are called so, in any case; else the folder itself for training."""
    train, test, validation = (
        [name for name in folders if name.lower() in names] for names in (TRAIN, TEST, VALIDATION)
    )
    shown = printable(top)
    for same in (train, test, validation):
        if len(same) > 1:
            raise SelfieLiteError(f"{shown} has {same[0]}/ and {same[1]}/: which one is meant? Move the other away.")
    tests = test or validation
    if not train and tests:
        raise SelfieLiteError(
            f"{shown} has a folder {tests[0]}/ but no train/. If {tests[0]}/ is the test part, name the other one "
            f"train; if it is a class, put all classes into {os.path.join(shown, 'train')}."
        )
    if not train:
        return {"train": top}
    parts = {"train": os.path.join(top, train[0])} | ({"test": os.path.join(top, tests[0])} if tests else {})
    others = [name for name in folders if name not in (*train, *tests)]
    paths = {name: os.path.join(top, name) for name in others}
    with_images = [name for name, path in paths.items() if any(Walk(path, [os.path.realpath(path)]).directories(path))]
    if with_images and not tests:
        raise SelfieLiteError(
            f"{shown} has {train[0]}/ beside {with_images[0]}/, which holds images too. If {train[0]}/ is the training "
            f"part, give {parts['train']} instead; if it is a class, put all classes into a folder of their own, "
            f"{os.path.join(shown, 'all', 'train')} say, and give that."
        )
    said = [f"{printable(name)}/ (only {train[0]}/ and {tests[0]}/ are read)" for name in with_images]
    said += [f"{len(images)} images beside {train[0]}/"] if images else []
    if said:
        say(f"{shown}: passed over {', '.join(said)}.")
    return parts


def _require_known(parts: dict[str, str], classes: dict[str, list[str]]) -> None:
    extra = [name for name in classes["test"] if name not in classes["train"]]
    if extra == [UNLABELLED]:
        raise SelfieLiteError(f"{parts['test']} holds images without class folders, {parts['train']} has classes.")
    if extra:
        raise SelfieLiteError(f"{parts['test']} has classes that {parts['train']} lacks: {', '.join(extra[:5])}.")


def _require_apart(walks: dict[str, "Walk"], unread: set[str]) -> None:
    """No image that lies elsewhere may be linked from both parts."""
    if not any(walk.linked for walk in walks.values()):
        return
    for name in unread:
        for _ in walks[name].directories(walks[name].root):
            pass
    both = sorted(walks["train"].linked & walks["test"].linked)
    if both:
        raise SelfieLiteError(
            f"{len(both)} images are linked from both {walks['train'].root} and {walks['test'].root}, the first "
            f"{printable(both[0])}: for training or for tests? Take the links out of one."
        )
