"""Small matrices as colours."""

import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from selfie_lite.workbook.figures.canvas import figure


def draw_matrix(matrix: Tensor, title: str = "", rows: str = "", columns: str = "") -> Figure:
    """A small matrix (R, C) as colours, with its numbers."""
    values = matrix.detach().float().numpy()
    with figure(1, 1, 4.6, 3.8) as (fig, axes):
        ax = axes[0, 0]
        shown = ax.imshow(values, cmap="viridis")
        ax.set(title=title, xlabel=columns, ylabel=rows)
        ax.set(xticks=range(values.shape[1]), yticks=range(values.shape[0]))
        middle = (values.min() + values.max()) / 2
        for i, k in np.ndindex(*values.shape):
            ink = "white" if values[i, k] < middle else "black"
            ax.text(k, i, f"{values[i, k]:.2f}", ha="center", va="center", color=ink, fontsize=9)
        fig.colorbar(shown, ax=ax, shrink=0.85)
    return fig


def draw_matrices(
    matrices: dict[str, Tensor],
    color_label: str = "",
    center: bool = False,
    width: float = 3.2,
    rows: str = "",
    columns: str = "",
    limits: tuple[float, float] | None = None,
) -> Figure:
    """Several matrices in a row, on one scale of colours: {title: (R, C)}. center: a scale symmetric about zero."""
    arrays = {title: matrix.detach().float().numpy() for title, matrix in matrices.items()}
    largest = max(abs(m).max() for m in arrays.values())
    low, high = limits or (-largest if center else min(m.min() for m in arrays.values()), largest)
    with figure(1, len(arrays), width * len(arrays), 3.1) as (fig, axes):
        for ax, (title, matrix) in zip(axes[0], arrays.items(), strict=True):
            shown = ax.imshow(matrix, cmap="PuOr" if center else "viridis", vmin=low, vmax=high)
            ax.set_title(title)
            ax.set(xticks=[], yticks=[], xlabel=columns, ylabel=rows)
            ax.spines[:].set_visible(False)
        fig.colorbar(shown, ax=list(axes[0]), label=color_label, shrink=0.8)
    return fig
