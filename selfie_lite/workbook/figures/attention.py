"""Where a model looks, and what its locations have to do with each other."""

from collections.abc import Sequence

import torch
from matplotlib import colormaps
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from torch import Tensor

from selfie_lite.patches import PatchGrid, patchify
from selfie_lite.workbook.figures.canvas import ORANGE, figure, frame, on_mats, show_frame, show_grid


def draw_attention(
    image: Tensor,
    grid: PatchGrid,
    visible: Tensor,
    masked: Tensor,
    weights: Tensor,
    titles: Sequence[str],
    columns: int = 4,
    color_label: str = "attention weight",
    numbers: bool = False,
    asked: Sequence[int] = (),
) -> Figure:
    """Attention weights (n, V) over the visible patches of one image (3, H, W): every patch lies on a mat of the colour
    of its weight, all maps on one scale; masked locations are hatched.

    numbers: of the locations. asked: for each map, a location to be framed.
    """
    rows = -(-len(weights) // columns)
    colors = ScalarMappable(Normalize(0, weights.max().item()), colormaps["viridis"])
    patches = patchify(image[None], grid)[0]
    with figure(rows, columns, 2.3 * columns + 0.6, 2.5 * rows) as (fig, axes):
        for ax in axes.flat:
            ax.axis("off")
        for k, (ax, row, title) in enumerate(zip(axes.flat, weights, titles, strict=False)):
            mats = torch.full((grid.count, 3), 255, dtype=torch.uint8)
            mats[visible] = torch.from_numpy(colors.to_rgba(row.detach().float().numpy(), bytes=True)[:, :3])
            picture, larger = on_mats(patches, grid, mats, round(0.35 * grid.patch_size))
            show_grid(ax, picture, larger, masked, 0 if numbers else None)
            if asked:
                show_frame(ax, larger, asked[k])
            ax.set_title(title)
        fig.colorbar(colors, ax=list(axes.flat), label=color_label, shrink=0.7)
    return fig


def draw_similarities(similarity: Tensor, grid: PatchGrid) -> Figure:
    """Every location compared with all: map number j, at its own place, shows row j of (N, N) on the grid; location j
    itself is framed. One scale, -1 to 1."""
    with figure(grid.side, grid.side, 1.2 * grid.side + 0.8, 1.2 * grid.side) as (fig, axes):
        for j, ax in enumerate(axes.flat):
            shown = ax.imshow(similarity[j].detach().view(grid.side, -1).numpy(), cmap="PuOr", vmin=-1, vmax=1)
            frame(ax)
            show_frame(ax, PatchGrid(grid.side, 1), j, ORANGE)
        fig.colorbar(shown, ax=list(axes.flat), label="cosine similarity with the framed location", shrink=0.7)
    return fig
