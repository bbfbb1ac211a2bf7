"""Cut an image into patches, put patches back together, and choose which patches to hide (paper, section 2.1)."""

import math
from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor

from selfie_lite.errors import SelfieLiteError, require_number, require_type


@dataclass(frozen=True)
class PatchGrid:
    """How a square image is cut into a `side` × `side` grid of square patches.

    Locations are numbered row by row from 0: location = row · side + column.
    The paper uses `PatchGrid(32, 8)`, 4×4 = 16 patches, and `PatchGrid(224, 32)`, 7×7 = 49 patches.

    Args:
        image_size: height and width of the image, in pixels.
        patch_size: height and width of a patch, in pixels.

    Raises:
        SelfieLiteError: if one is no whole number, or `image_size` is not a multiple of `patch_size`.
    """

    image_size: int
    patch_size: int

    def __post_init__(self) -> None:
        require_number("image_size", self.image_size, 1)
        require_number("patch_size", self.patch_size, -math.inf)
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
        SelfieLiteError: if `images` is no tensor, or has another shape than the grid asks for.
    """
    _require_tensor_and_grid("images", images, grid)
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
        SelfieLiteError: if `patches` is no tensor, or does not hold all N patches of the grid.
    """
    _require_tensor_and_grid("patches", patches, grid)
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
        SelfieLiteError: if no patch or every patch would be masked, or an argument is of another kind.
    """
    require_number("batch_size", batch_size, 0)
    require_num_masked(num_masked, grid)
    order = uniform((batch_size, grid.count), generator).argsort(dim=1)
    masked = order[:, :num_masked].sort(dim=1).values
    visible = order[:, num_masked:].sort(dim=1).values
    return visible.to(device), masked.to(device)


def sample_offsets(
    batch_size: int,
    grid: PatchGrid,
    gap: int,
    generator: torch.Generator | None = None,
    device: torch.device | str | None = None,
) -> Tensor:
    """Where each patch is cropped out of its cell: (B, N, 2) int64, row and column, each of 0 to `gap` equally likely.

    Arguments as in `sample_masks`.
    """
    return (uniform((batch_size, grid.count, 2), generator) * (gap + 1)).long().to(device)


def crop_patches(patches: Tensor, gap: int, offsets: Tensor | None = None) -> Tensor:
    """Cut a square out of every patch, `gap` pixels smaller: the border between two neighbours is lost.

    Args:
        patches: (B, N, C, S, S), any dtype.
        offsets: (B, N, 2) int64, 0 to `gap`: row and column of each square's corner. Default: the middle.

    Returns:
        (B, N, C, S - gap, S - gap), same dtype.

    Raises:
        SelfieLiteError: for offsets of another shape or type.
    """
    size = patches.shape[-1] - gap
    if offsets is None:
        middle = slice(gap // 2, gap // 2 + size)
        return patches[..., middle, middle]
    if offsets.dtype != torch.int64 or offsets.shape != (*patches.shape[:2], 2):
        raise SelfieLiteError(
            f"offsets must be int64 of shape {(*patches.shape[:2], 2)}, "
            f"but are {offsets.dtype} of shape {tuple(offsets.shape)}."
        )
    index = offsets[..., None] + torch.arange(size, device=offsets.device)  # (B, N, 2, S - gap)
    rows, columns = index[:, :, 0, None, :, None], index[:, :, 1, None, None, :]
    patches = patches.gather(3, rows.expand(-1, -1, patches.shape[2], -1, patches.shape[4]))
    return patches.gather(4, columns.expand(-1, -1, patches.shape[2], size, -1))


def uniform(shape: tuple[int, ...], generator: torch.Generator | None = None) -> Tensor:
    """Numbers in [0, 1), float32, drawn where the generator lives (CPU without one), so that one seed means the same
    numbers on every device.

    Raises:
        SelfieLiteError: if `generator` is not torch's.
    """
    if generator is None:
        return torch.rand(shape)
    require_type("generator", generator, torch.Generator, " Make one from a seed: torch.Generator().manual_seed(0).")
    return torch.rand(shape, generator=generator, device=generator.device)


def require_num_masked(num_masked: int, grid: PatchGrid) -> None:
    """Raise SelfieLiteError unless so many patches of the grid can be hidden."""
    require_type("grid", grid, PatchGrid, " Make one: PatchGrid(32, 8).")
    require_number("num_masked", num_masked, -math.inf)
    if not 1 <= num_masked < grid.count:
        raise SelfieLiteError(
            f"num_masked must lie between 1 and {grid.count - 1} for a grid of {grid.count} patches "
            f"(something must be hidden, and something must stay visible), but is {num_masked}."
        )


def require_masks(visible: Tensor, masked: Tensor, batch_size: int, grid: PatchGrid) -> None:
    """Raise SelfieLiteError for locations that do not fit the batch or the grid, or stand twice.

    Looks at the values on the CPU alone: elsewhere that would make the device wait.
    """
    for name, locations in (("visible", visible), ("masked", masked)):
        require_type(name, locations, Tensor, " Make it one: torch.tensor([[0, 1, …], …]), one row an image.")
        if locations.dtype != torch.int64 or locations.ndim != 2 or len(locations) != batch_size:
            raise SelfieLiteError(
                f"{name} must be int64 of shape ({batch_size}, locations), one row an image, "
                f"but is {locations.dtype} of shape {tuple(locations.shape)}."
            )
        if locations.shape[1] == 0:
            raise SelfieLiteError(f"{name} is empty: something must be hidden, and something must stay visible.")
    if not visible.device.type == masked.device.type == "cpu" or torch.compiler.is_compiling():
        return
    both = torch.cat([visible, masked], dim=1).sort(dim=1).values
    if both.min() < 0 or both.max() >= grid.count:
        raise SelfieLiteError(
            f"locations run from 0 to {grid.count - 1}, but {int(both.min())} to {int(both.max())} were given."
        )
    if (both[:, 1:] == both[:, :-1]).any():
        raise SelfieLiteError("a location stands twice in one image's visible and masked locations.")


def _require_tensor_and_grid(name: str, value: Tensor, grid: PatchGrid) -> None:
    require_type(name, value, Tensor, f" Make it one: torch.as_tensor({name}).")
    require_type("grid", grid, PatchGrid, " Make one: PatchGrid(32, 8).")
