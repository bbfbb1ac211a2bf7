"""Small matrices as colours."""

import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from selfie_lite.workbook.figures.canvas import figure


def draw_matrices(
    matrices: dict[str, Tensor],
    color_label: str = "",
    center: bool = False,
    width: float = 3.2,
    rows: str = "",
    columns: str = "",
    limits: tuple[float, float] | None = None,
    numbers: bool = False,
) -> Figure:
    """Several matrices in a row, on one scale of colours: {title: (R, C)}.

    center: a scale symmetric about zero. limits: of the scale. numbers: written into the cells and along the sides.
    """
    arrays = {title: matrix.detach().float().numpy() for title, matrix in matrices.items()}
    largest = max(abs(m).max() for m in arrays.values())
    low, high = limits or (-largest if center else min(m.min() for m in arrays.values()), largest)
    with figure(1, len(arrays), width * len(arrays), max(3.1, 0.8 * width)) as (fig, axes):
        for ax, (title, matrix) in zip(axes[0], arrays.items(), strict=True):
            shown = ax.imshow(matrix, cmap="PuOr" if center else "viridis", vmin=low, vmax=high)
            ax.set(title=title, xlabel=columns, ylabel=rows, xticks=[], yticks=[])
            ax.spines[:].set_visible(False)
            if numbers:
                ax.set(xticks=range(matrix.shape[1]), yticks=range(matrix.shape[0]))
                for (i, k), value in np.ndenumerate(matrix):
                    dark = abs(value) > 0.6 * largest if center else value < (low + high) / 2
                    ax.text(k, i, f"{value:.2f}", ha="center", va="center", color="white" if dark else "black", size=9)
        fig.colorbar(shown, ax=list(axes[0]), label=color_label, shrink=0.8)
    return fig
