"""What a model answers for one image: probabilities, a puzzle put together, one guess."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from selfie_lite.beliefs import Beliefs
from selfie_lite.patches import PatchGrid, patchify, unpatchify
from selfie_lite.workbook.figures.canvas import GREEN, ORANGE, RED, figure, pixels, show_grid, show_thumbnail


def draw_logits(
    logits: Tensor, image: Tensor, grid: PatchGrid, masked: Tensor, title: str = "", whole: bool = True
) -> Figure:
    """Softmax of logits (M, M) of one image: rows are locations, columns candidate patches; right answers framed,
    the model's choice in each row marked with a dot.

    whole: the image with its hidden locations beside them.
    """
    patches = patchify(image[None], grid)[0][masked]
    probabilities = logits.detach().softmax(dim=1).numpy()
    size = min(max(3.6, 0.45 * len(masked)), 7.2)
    scale = min(1, 16 / len(masked))
    shape = dict(columns=2, width=size + 4.4, width_ratios=[3.2, size + 1]) if whole else dict(width=size + 1.2)
    with figure(height=size, **shape) as (fig, axes):
        if whole:
            show_grid(axes[0, 0], image, grid, masked, 0)
            axes[0, 0].set_title("hidden locations")
        ax = axes[0, -1]
        shown = ax.imshow(probabilities, cmap="viridis", vmin=0, vmax=1)
        for i in range(len(masked)):
            for color, line in (("black", 4), ("white", 2)):  # seen on dark and on bright
                ax.add_patch(Rectangle((i - 0.46, i - 0.46), 0.92, 0.92, fill=False, ec=color, lw=line * scale))
            if len(masked) <= 6:
                for k in range(len(masked)):
                    ink = "black" if probabilities[i, k] > 0.7 else "white"
                    ax.text(k, i - 0.1, f"{probabilities[i, k]:.2f}", ha="center", va="center", color=ink)
        dots = probabilities.argmax(axis=1), np.arange(len(masked)) + 0.25
        ax.scatter(*dots, color=ORANGE, ec="black", lw=scale, s=40 * scale)
        ax.set_yticks(range(len(masked)), [f"location {m}" for m in masked.tolist()], fontsize=10 * max(scale, 0.6))
        ax.set_xticks([])
        for k, patch in enumerate(patches):
            extent = (k - 0.4, k + 0.4, len(masked) + 0.4, len(masked) - 0.4)
            ax.imshow(pixels(patch), interpolation="nearest", extent=extent)
        ax.set(xlim=(-0.5, len(masked) - 0.5), ylim=(len(masked) + 0.45, -0.5))
        ax.set_title(title or "probability of each candidate (below) at each location")
        if whole or len(masked) > 6:  # else the numbers say it
            fig.colorbar(shown, ax=ax, label="probability", shrink=0.8)
        ax.spines[:].set_visible(False)
    return fig


def draw_puzzle(image: Tensor, grid: PatchGrid, masked: Tensor, logits: Tensor, whole: bool = True) -> Figure:
    """The image (3, H, W), the image with holes, and every hole filled by the model's choice; wrong ones framed.

    whole: with the second of the three.
    """
    columns = 3 if whole else 2
    with figure(1, columns, 3 * columns, 3.3) as (fig, axes):
        show_grid(axes[0, 0], image, grid, (), None)
        axes[0, 0].set_title("the image")
        if whole:
            show_grid(axes[0, 1], image, grid, masked, 0)
            axes[0, 1].set_title("what the model sees")
        hits = _show_filled(axes[0, -1], image, grid, masked, logits)
        axes[0, -1].set_title(f"put together: {hits} of {len(masked)} right (solid)")
    return fig


def draw_puzzles(
    images: Tensor, grid: PatchGrid, masked: Tensor, logits: dict[str, Tensor], names: Sequence[str] = ()
) -> Figure:
    """Several puzzles, a row each, with the image, what is seen of it, and the holes as each of several models fills
    them: right patches in solid frames, wrong ones in dashed.

    Args:
        images: (n, 3, H, W). masked: (n, M) locations. logits: {name of a model, or of a step: (n, M, M)}.
        names: of the rows.
    """
    rows, columns = len(images), 2 + len(logits)
    with figure(rows, columns, 1.8 * columns + 0.4, 2 * rows + 0.1) as (fig, axes):
        for i, row in enumerate(axes):
            show_grid(row[0], images[i], grid, (), None)
            show_grid(row[1], images[i], grid, masked[i], None)
            for ax, title in zip(row, ("the image", "what is seen") if i == 0 else (), strict=False):
                ax.set_title(title, fontsize=9)
            for text in names[i : i + 1]:
                row[0].text(-0.06, 0.5, text, transform=row[0].transAxes, rotation=90, ha="right", va="center")
            for ax, (name, answers) in zip(row[2:], logits.items(), strict=True):
                hits = _show_filled(ax, images[i], grid, masked[i], answers[i])
                ax.set_title((f"{name}\n" if i == 0 else "") + f"{hits} of {masked.shape[1]}", fontsize=9)
    return fig


def _show_filled(ax: Axes, image: Tensor, grid: PatchGrid, masked: Tensor, logits: Tensor) -> int:
    """The holes filled by the choices of logits (M, M): right ones in solid green, wrong ones in dashed red frames.
    Gives how many are right."""
    patches, choice = patchify(image[None], grid)[0].clone(), masked[logits.detach().argmax(dim=1)]
    patches[masked] = patches[choice]
    show_grid(ax, unpatchify(patches[None], grid)[0], grid, (), None)
    size = grid.patch_size
    for location, chosen in zip(masked.tolist(), choice.tolist(), strict=True):
        corner = (location % grid.side * size - 0.5, location // grid.side * size - 0.5)
        color, line = (GREEN, "-") if location == chosen else (RED, "--")
        ax.add_patch(Rectangle(corner, size, size, fill=False, lw=3, zorder=2, ec=color, ls=line))
    return int((choice == masked).sum())


def draw_guess(beliefs: Beliefs, location: int, whole: bool = True) -> Figure:
    """One masked location: the image with it framed, and a bar for every candidate, in shuffled order; the right
    one is solid with a check mark, wrong ones hatched, and the model's choice has an arrow.

    whole: the image with the location framed beside them.
    """
    row, count = beliefs.row_of(location), len(beliefs.masked)
    patches = patchify(beliefs.image[None], beliefs.grid)[0][beliefs.masked[beliefs.order]]
    chances = beliefs.probabilities[row][beliefs.order].numpy()
    right, chosen = beliefs.order.tolist().index(row), chances.argmax()
    size = beliefs.grid.patch_size
    across, down = location % beliefs.grid.side * size - 0.5, location // beliefs.grid.side * size - 0.5
    shape = dict(columns=2, width=7.6, width_ratios=[1, 1.35]) if whole else dict(width=4.4)
    with figure(height=3.2, **shape) as (fig, (axes,)):
        if whole:
            show_grid(axes[0], beliefs.image, beliefs.grid, beliefs.masked, 0)
            axes[0].add_patch(Rectangle((across, down), size, size, fill=False, ec=ORANGE, lw=3.5, zorder=2))
            axes[0].set_title(f"what belongs at location {location}?")
        ax = axes[-1]
        colors = [GREEN if k == right else "white" for k in range(count)]
        bars = ax.bar(
            range(count), chances, color=colors, edgecolor=[GREEN if k == right else RED for k in range(count)]
        )
        for k, bar in enumerate(bars):
            bar.set_hatch("" if k == right else "///")
            mark = ("✓" if k == right else "") + ("▼" if k == chosen else "")
            ax.text(k, chances[k] + 0.02, f"{mark}\n{chances[k]:.2f}" if count <= 8 else mark, ha="center", fontsize=8)
        ax.axhline(1 / count, color="black", ls=":", lw=1.2, label=f"chance: {1 / count:.2f}")
        ax.set(ylim=(-0.42, 1.2), xlim=(-0.6, count - 0.4), yticks=[0, 0.5, 1], ylabel="probability")
        letters = [beliefs.letter(candidate) for candidate in beliefs.order.tolist()]
        ax.set_xticks(range(count), letters, fontsize=9 if count <= 16 else 6)
        for k, patch in enumerate(patches):
            show_thumbnail(ax, patch, (k, -0.2), points=min(34, 190 / count))
        ax.legend(loc="upper right", fontsize=8)
        ax.set_title(("" if whole else f"location {location}:   ") + "✓ right   ▼ the model's choice")
    return fig
