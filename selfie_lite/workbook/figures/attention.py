"""Where a model looks."""

from collections.abc import Sequence

import torch
from matplotlib.figure import Figure
from torch import Tensor

from selfie_lite.patches import PatchGrid
from selfie_lite.workbook.figures.canvas import figure, show_grid


def draw_attention(
    image: Tensor,
    grid: PatchGrid,
    visible: Tensor,
    masked: Tensor,
    weights: Tensor,
    titles: Sequence[str],
    columns: int = 4,
    color_label: str = "attention weight",
    low: float | None = 0.0,
    numbers: bool = False,
) -> Figure:
    """Attention weights (n, V) over the visible patches of one image, laid over it; masked patches are hatched.

    numbers: of the locations.
    """
    rows = -(-len(weights) // columns)
    with figure(rows, columns, 2.3 * columns + 0.6, 2.5 * rows) as (fig, axes):
        for ax in axes.flat:
            ax.axis("off")
        low, top = (weights.min().item() if low is None else low), weights.max().item()
        grey = image.float().mean(dim=0).round().to(torch.uint8).expand(3, -1, -1)  # so that colour means weight alone
        for ax, row, title in zip(axes.flat, weights, titles, strict=False):
            full = torch.full((grid.count,), float("nan"))
            full[visible] = row.detach().float()
            show_grid(ax, grey, grid, masked, 0 if numbers else None)
            extent = (-0.5, grid.image_size - 0.5, grid.image_size - 0.5, -0.5)
            shown = ax.imshow(
                full.view(grid.side, grid.side).numpy(), cmap="viridis", alpha=0.65, vmin=low, vmax=top, extent=extent
            )
            ax.set_title(title)
        fig.colorbar(shown, ax=list(axes.flat), label=color_label, shrink=0.7)
    return fig
