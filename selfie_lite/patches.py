"""Cut an image into patches, put patches back together, and choose which patches to hide (paper, section 2.1)."""

from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor

from selfie_lite.errors import SelfieLiteError


@dataclass(frozen=True)
class PatchGrid:
    """How a square image is cut into a `side` × `side` grid of square patches.

    Locations are numbered row by row from 0: location = row · side + column.
    The paper uses `PatchGrid(32, 8)`, 4×4 = 16 patches, and `PatchGrid(224, 32)`, 7×7 = 49 patches.

    Args:
        image_size: height and width of the image, in pixels.
        patch_size: height and width of a patch, in pixels.

    Raises:
        SelfieLiteError: if `image_size` is not a multiple of `patch_size`.
    """

    image_size: int
    patch_size: int

    def __post_init__(self):
        if self.patch_size < 1 or self.image_size < self.patch_size:
            raise SelfieLiteError(
                f"patch_size must lie between 1 and image_size ({self.image_size}), but is {self.patch_size}."
            )
        if remainder := self.image_size % self.patch_size:
            below = self.image_size - remainder
            raise SelfieLiteError(
                f"image_size {self.image_size} cannot be cut into patches of {self.patch_size} pixels: {remainder} "
                f"are left over. Resize or crop the images to {below} or {below + self.patch_size} pixels."
            )

    @property
    def side(self) -> int:
        """Patches along one side of the image (G)."""
        return self.image_size // self.patch_size

    @property
    def count(self) -> int:
        """Patches in one image (N = G·G)."""
        return self.side**2


def patchify(images: Tensor, grid: PatchGrid) -> Tensor:
    """Cut images into patches.

    Args:
        images: (B, C, H, W), any dtype, with H = W = `grid.image_size`.

    Returns:
        (B, N, C, S, S), same dtype, patches in row-major order.

    Raises:
        SelfieLiteError: if `images` has another shape than the grid asks for.
    """
    if images.ndim != 4 or tuple(images.shape[-2:]) != (grid.image_size, grid.image_size):
        raise SelfieLiteError(
            f"images must have shape (batch, channels, {grid.image_size}, {grid.image_size}), "
            f"but have {tuple(images.shape)}. Resize them, or build the grid for their size."
        )
    return rearrange(images, "b c (row s) (column t) -> b (row column) c s t", s=grid.patch_size, t=grid.patch_size)


def unpatchify(patches: Tensor, grid: PatchGrid) -> Tensor:
    """Put patches back together: the exact inverse of `patchify`.

    Args:
        patches: (B, N, C, S, S), any dtype, in row-major order.

    Returns:
        (B, C, H, W), same dtype.

    Raises:
        SelfieLiteError: if `patches` does not hold all N patches of the grid.
    """
    expected = (grid.count, grid.patch_size, grid.patch_size)
    if patches.ndim != 5 or (patches.shape[1], *patches.shape[3:]) != expected:
        raise SelfieLiteError(
            f"patches must have shape (batch, {grid.count}, channels, {grid.patch_size}, {grid.patch_size}), "
            f"but have {tuple(patches.shape)}."
        )
    return rearrange(patches, "b (row column) c s t -> b c (row s) (column t)", row=grid.side)


def sample_masks(
    batch_size: int,
    grid: PatchGrid,
    num_masked: int,
    generator: torch.Generator | None = None,
    device: torch.device | str | None = None,
) -> tuple[Tensor, Tensor]:
    """Draw, for every image on its own, which locations stay visible and which are masked.

    Every set of `num_masked` locations is equally likely. Both results are in increasing order.

    Args:
        batch_size: number of images, B.
        num_masked: masked patches of each image, M.
        generator: source of randomness; the same state gives the same masks. Default: torch's global one.
        device: where the result lives. Default: the generator's device. (The numbers are drawn on the
            generator's device, so that one seed means the same masks everywhere.)

    Returns:
        visible: (B, N - M) int64, and masked: (B, M) int64; together all N locations of the grid.

    Raises:
        SelfieLiteError: if no patch or every patch would be masked.
    """
    if not 1 <= num_masked < grid.count:
        raise SelfieLiteError(
            f"num_masked must lie between 1 and {grid.count - 1} for a grid of {grid.count} patches "
            f"(something must be hidden, and something must stay visible), but is {num_masked}."
        )
    drawn_on = generator.device if generator is not None else "cpu"
    order = torch.rand(batch_size, grid.count, generator=generator, device=drawn_on).argsort(dim=1)
    masked = order[:, :num_masked].sort(dim=1).values
    visible = order[:, num_masked:].sort(dim=1).values
    return visible.to(device), masked.to(device)
