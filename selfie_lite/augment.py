"""Crop, flip and normalise a batch, each image with its own random numbers, on whatever device it lives."""

import math
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from selfie_lite.errors import SelfieLiteError, require_choice, require_number, require_type
from selfie_lite.patches import uniform

# ImageNet's channel statistics (of 1.0): what torchvision's and timm's ResNets expect, so weights travel freely.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
SMALL = 64  # images of up to so many pixels a side are shifted by a few pixels; larger ones cropped at random


def normalize(images: Tensor) -> Tensor:
    """uint8 (…, 3, H, W), 0 to 255, to float32 with about zero mean and unit variance per channel.

    Raises:
        SelfieLiteError: for images of another type or shape.
    """
    require_type("images", images, Tensor, " Make it one: torch.as_tensor(images).")
    if images.dtype != torch.uint8:
        raise SelfieLiteError(f"normalize takes uint8 images, 0 to 255, but these are {images.dtype}.")
    if images.ndim < 3 or images.shape[-3] != 3:
        raise SelfieLiteError(f"normalize takes RGB images (…, 3, height, width), but got {tuple(images.shape)}.")
    mean, std = (torch.tensor(x, device=images.device).view(3, 1, 1) for x in (MEAN, STD))
    return (images / 255 - mean) / std


def denormalize(images: Tensor) -> Tensor:
    """The inverse of `normalize`: float (…, 3, H, W) back to uint8, for pictures.

    Raises:
        SelfieLiteError: for images of another type or shape.
    """
    require_type("images", images, Tensor, " Make it one: torch.as_tensor(images).")
    if not images.is_floating_point() or images.ndim < 3 or images.shape[-3] != 3:
        raise SelfieLiteError(
            f"denormalize takes normalised float images (…, 3, height, width), "
            f"but got {images.dtype} of shape {tuple(images.shape)}."
        )
    mean, std = (torch.tensor(x, device=images.device).view(3, 1, 1) for x in (MEAN, STD))
    return ((images * std + mean) * 255).round().clamp(0, 255).to(torch.uint8)


def augment(images: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """The paper's augmentation for an image of this size: pad, crop and flip up to 64 pixels, else
    random resized crop and flip.

    Args:
        images: (B, C, H, W) uint8.
        generator: source of randomness. Default: torch's global one.

    Returns:
        (B, C, H, W) uint8: every image with its own crop and flip.

    Raises:
        SelfieLiteError: for images of another type or shape.
    """
    _require_batch(images)
    return make_crop(images.shape[-1])(images, generator=generator)


def make_crop(image_size: int, padding: int = 4) -> Callable[..., Tensor]:
    """The augmentation for images of this size, of the form crop(images, generator=…): `pad_crop_flip` with `padding`
    up to 64 pixels, else `random_resized_crop_flip`.

    Raises:
        SelfieLiteError: for a size or padding that cannot be.
    """
    require_number("image_size", image_size, 1)
    require_number("padding", padding, 0, image_size - 1)
    return partial(pad_crop_flip, padding=padding) if image_size <= SMALL else random_resized_crop_flip


def pad_crop_flip(
    images: Tensor, padding: int = 4, padding_mode: str = "zero", generator: torch.Generator | None = None
) -> Tensor:
    """Pad all four sides, crop back to the old size at a random place, flip left-right half of the time.

    Args:
        images: (B, C, H, W), any dtype.
        padding: pixels added to each side; 0 only flips.
        padding_mode: "zero", the paper's black border, or "reflect". Both leave a trace at the border of the image that
            gives a location away (notebook 01); only padding 0 does not.
        generator: source of randomness. Default: torch's global one.

    Returns:
        (B, C, H, W), same dtype.

    Raises:
        SelfieLiteError: for images of another shape, or a padding that cannot be.
    """
    require_choice("padding_mode", padding_mode, ["zero", "reflect"])
    batch, _, height, width = _require_batch(images)
    require_number("padding", padding, 0, min(height, width) - 1)
    drawn = uniform((batch, 3), generator).to(images.device, non_blocking=True)
    shift = (drawn * (2 * padding + 1)).long() - padding  # each of -padding … padding equally likely
    rows = shift[:, :1] + torch.arange(height, device=images.device)  # (B, H), in the unpadded image
    columns = shift[:, 1:2] + torch.arange(width, device=images.device)  # (B, W)
    columns = torch.where(drawn[:, 2:] < 0.5, columns.flip(1), columns)
    outside = ((rows < 0) | (rows >= height))[:, None, :, None] | ((columns < 0) | (columns >= width))[:, None, None, :]
    rows, columns = _reflect(rows, height), _reflect(columns, width)

    image = torch.arange(batch, device=images.device)[:, None, None]
    crops = images.movedim(1, -1)[image, rows[:, :, None], columns[:, None, :]].movedim(-1, 1)
    return crops.masked_fill(outside, 0) if padding_mode == "zero" else crops.contiguous()


def random_resized_crop_flip(
    images: Tensor,
    scale: tuple[float, float] = (0.08, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
    generator: torch.Generator | None = None,
) -> Tensor:
    """Cut out a random rectangle of each image, stretch it to the full size, flip half of the time.

    Args:
        images: (B, C, H, W) uint8.
        scale: smallest and largest area of the rectangle, as parts of the image.
        ratio: smallest and largest width over height.
        generator: source of randomness. Default: torch's global one.

    Returns:
        (B, C, H, W) uint8, bilinearly interpolated.

    Raises:
        SelfieLiteError: for images of another type or shape, or ranges that cannot be.
    """
    _require_batch(images)
    _require_range("scale", scale, 1)
    _require_range("ratio", ratio, math.inf)
    if images.dtype != torch.uint8:
        raise SelfieLiteError(f"crop uint8 images, before normalize, but these are {images.dtype}.")
    batch, device = len(images), images.device
    drawn = uniform((batch, 5), generator).to(device, non_blocking=True)
    area = scale[0] + (scale[1] - scale[0]) * drawn[:, 0]
    log_ratio = math.log(ratio[0]) + (math.log(ratio[1]) - math.log(ratio[0])) * drawn[:, 1]
    width = (area * log_ratio.exp()).sqrt().clamp(max=1)  # of 1, as is height
    height = (area / log_ratio.exp()).sqrt().clamp(max=1)
    center_x = (drawn[:, 2] * 2 - 1) * (1 - width)  # of the image's width, from -1 to 1
    center_y = (drawn[:, 3] * 2 - 1) * (1 - height)
    sign = torch.where(drawn[:, 4] < 0.5, -1.0, 1.0)
    zero = torch.zeros_like(width)
    theta = torch.stack([sign * width, zero, center_x, zero, height, center_y], dim=1).view(batch, 2, 3)
    where = F.affine_grid(theta, list(images.shape), align_corners=False)
    crops = F.grid_sample(images.float(), where, mode="bilinear", padding_mode="reflection", align_corners=False)
    return crops.round().to(images.dtype)


def require_normalized(images: Tensor) -> None:
    """Raise SelfieLiteError for float images that `normalize` never saw: not finite, from 0 to 1, or from 0 to 255.

    Looks at the values on the CPU alone: elsewhere that would make the device wait.
    """
    if not images.is_floating_point():
        raise SelfieLiteError(f"images must be uint8, 0 to 255, or normalised float, but are {images.dtype}.")
    if images.device.type != "cpu" or torch.compiler.is_compiling():
        return
    low, high = (value.item() for value in images.detach().aminmax())
    if not math.isfinite(high - low):
        raise SelfieLiteError("images hold values that are no numbers (NaN or infinite): look at how they were made.")
    if 0 <= low < high <= 1 or high > 10:
        factor = "(images * 255).round()" if high <= 1 else "images.round()"
        raise SelfieLiteError(
            f"float images must be normalised (about -2.2 to 2.7), but these run from {low:.3g} to {high:.3g}. "
            f"Normalise them: normalize({factor}.to(torch.uint8))."
        )


def _require_batch(images: Tensor) -> torch.Size:
    require_type("images", images, Tensor, " Make it one: torch.as_tensor(images).")
    if images.ndim != 4 or 0 in images.shape[1:]:
        raise SelfieLiteError(f"images must have shape (batch, channels, height, width), not {tuple(images.shape)}.")
    return images.shape


def _require_range(name: str, limits: tuple[float, float], most: float) -> None:
    require_type(name, limits, tuple, " Give the smallest and the largest.")
    if len(limits) != 2 or not 0 < limits[0] <= limits[1] <= most or limits[1] == math.inf:
        above = "" if most == math.inf else f", at most {most}"
        raise SelfieLiteError(f"{name} must be two numbers above 0{above}, the smaller first, but is {limits}.")


def _reflect(index: Tensor, size: int) -> Tensor:
    """Indices before the first or behind the last pixel, mirrored back into the image."""
    return (size - 1) - ((size - 1) - index.abs()).abs()
