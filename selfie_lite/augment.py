"""Crop, flip and normalise a batch, each image with its own random numbers, on whatever device it lives."""

import math
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from selfie_lite.errors import SelfieLiteError, require_choice

# ImageNet's channel statistics (of 1.0): what torchvision's and timm's ResNets expect, so weights travel freely.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


def normalize(images: Tensor) -> Tensor:
    """uint8 (…, 3, H, W), 0 to 255, to float32 with about zero mean and unit variance per channel."""
    if images.dtype != torch.uint8:
        raise SelfieLiteError(f"normalize takes uint8 images, 0 to 255, but these are {images.dtype}.")
    if images.ndim < 3 or images.shape[-3] != 3:
        raise SelfieLiteError(f"normalize takes RGB images (…, 3, height, width), but got {tuple(images.shape)}.")
    mean = torch.tensor(MEAN, device=images.device).view(3, 1, 1)
    std = torch.tensor(STD, device=images.device).view(3, 1, 1)
    return (images / 255 - mean) / std


def denormalize(images: Tensor) -> Tensor:
    """The inverse of `normalize`: float (…, 3, H, W) back to uint8, for pictures."""
    mean = torch.tensor(MEAN, device=images.device).view(3, 1, 1)
    std = torch.tensor(STD, device=images.device).view(3, 1, 1)
    return ((images * std + mean) * 255).round().clamp(0, 255).to(torch.uint8)


def augment(images: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """The paper's augmentation for an image of this size: pad, crop and flip up to 64 pixels, else
    random resized crop and flip.

    Args:
        images: (B, C, H, W) uint8.
        generator: source of randomness. Default: torch's global one.

    Returns:
        (B, C, H, W) uint8: every image with its own crop and flip.
    """
    return make_crop(images.shape[-1])(images, generator=generator)


def make_crop(image_size: int, padding: int = 4) -> Callable[..., Tensor]:
    """The augmentation for images of this size, of the form crop(images, generator=…): `pad_crop_flip` with `padding`
    up to 64 pixels, else `random_resized_crop_flip`."""
    return partial(pad_crop_flip, padding=padding) if image_size <= 64 else random_resized_crop_flip


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
    """
    require_choice("padding_mode", padding_mode, ["zero", "reflect"])
    batch, _, height, width = images.shape
    if not 0 <= padding < min(height, width):
        raise SelfieLiteError(f"padding must lie between 0 and {min(height, width) - 1}, but is {padding}.")
    uniform = _uniform(batch, 3, generator, images.device)
    shift = (uniform * (2 * padding + 1)).long() - padding  # each of -padding … padding equally likely
    rows = shift[:, :1] + torch.arange(height, device=images.device)  # (B, H), in the unpadded image
    columns = shift[:, 1:2] + torch.arange(width, device=images.device)  # (B, W)
    columns = torch.where(uniform[:, 2:] < 0.5, columns.flip(1), columns)
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
    """
    if images.dtype != torch.uint8:
        raise SelfieLiteError(f"crop uint8 images, before normalize, but these are {images.dtype}.")
    batch, device = len(images), images.device
    uniform = _uniform(batch, 5, generator, device)
    area = scale[0] + (scale[1] - scale[0]) * uniform[:, 0]
    log_ratio = math.log(ratio[0]) + (math.log(ratio[1]) - math.log(ratio[0])) * uniform[:, 1]
    width = (area * log_ratio.exp()).sqrt().clamp(max=1)  # of 1, as is height
    height = (area / log_ratio.exp()).sqrt().clamp(max=1)
    center_x = (uniform[:, 2] * 2 - 1) * (1 - width)  # of the image's width, from -1 to 1
    center_y = (uniform[:, 3] * 2 - 1) * (1 - height)
    sign = torch.where(uniform[:, 4] < 0.5, -1.0, 1.0)
    zero = torch.zeros_like(width)
    theta = torch.stack([sign * width, zero, center_x, zero, height, center_y], dim=1).view(batch, 2, 3)
    where = F.affine_grid(theta, list(images.shape), align_corners=False)
    crops = F.grid_sample(images.float(), where, mode="bilinear", padding_mode="reflection", align_corners=False)
    return crops.round().to(images.dtype)


def _uniform(batch, columns, generator, device):
    """(batch, columns) numbers in [0, 1), drawn where the generator lives (CPU without one), so that one seed means
    the same crops on every device."""
    drawn_on = generator.device if generator is not None else "cpu"
    return torch.rand(batch, columns, generator=generator, device=drawn_on).to(device, non_blocking=True)


def _reflect(index: Tensor, size: int) -> Tensor:
    """Indices before the first or behind the last pixel, mirrored back into the image."""
    return (size - 1) - ((size - 1) - index.abs()).abs()
