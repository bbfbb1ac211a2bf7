"""What every figure is drawn on and with: colours, style, canvas, and the small things that figures share."""

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.offsetbox import AnnotationBbox, OffsetImage
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Rectangle
from torch import Tensor

from selfie_lite.patches import PatchGrid

# Okabe and Ito's colours, which colour-blind readers can tell apart.
BLUE, ORANGE, GREEN, RED = "#0072B2", "#E69F00", "#009E73", "#D55E00"
PURPLE, SKY, GREY = "#CC79A7", "#56B4E9", "#7F7F7F"
LINES = [
    (BLUE, "-", "o"),
    (RED, "--", "s"),
    (GREEN, "-.", "^"),
    (ORANGE, ":", "D"),
    (PURPLE, "-", "v"),
    (SKY, "--", "P"),
]
STYLE: dict[Any, Any] = {
    "font.size": 10,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.dpi": 100,
    "savefig.bbox": "tight",
}


class Canvas(Figure):
    """A figure without pyplot, so that none stays open and no backend is asked for: MPLBACKEND may name one that works
    only in another process."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        FigureCanvasAgg(self)

    def _repr_png_(self) -> bytes:
        """What a notebook shows."""
        buffer = io.BytesIO()
        self.savefig(buffer, format="png", bbox_inches="tight", dpi=self.dpi)
        return buffer.getvalue()


@contextmanager
def figure(
    rows: int = 1, columns: int = 1, width: float = 9, height: float = 3, **options: Any
) -> Iterator[tuple[Canvas, np.ndarray]]:
    """A figure and its axes (rows, columns) in the workbook's style, inches wide and high."""
    with rc_context(STYLE):
        fig = Canvas(figsize=(width, height), layout="constrained")
        yield fig, fig.subplots(rows, columns, squeeze=False, **options)


def drawing(width: float, height: float) -> tuple[Canvas, Axes]:
    """A figure of one empty sheet, inches wide and high, on which things are placed by hand."""
    with rc_context(STYLE):
        fig = Canvas(figsize=(width, height))
        ax = fig.add_axes((0, 0, 1, 1))
    ax.axis("off")
    return fig, ax


def show_legend(ax: Axes, **options: Any) -> None:
    """A legend of names that are text as they stand: a run may be called $x$."""
    for text in ax.legend(framealpha=1, **options).get_texts():
        text.set_parse_math(False)


def to_png(fig: Figure, same: object = None, dpi: int = 80) -> bytes:
    """The figure as PNG, quickly.

    same: figures with the same axes, laid out alike; the layout, half of the work, is found for the first one only.
    """
    if places := _LAYOUTS.get(same):
        fig.set_layout_engine("none")
        for ax, place in zip(fig.axes, places, strict=True):
            ax.set_position(place)
    fig.set_dpi(dpi)
    buffer = io.BytesIO()
    FigureCanvasAgg(fig).print_png(buffer, pil_kwargs={"compress_level": 1})
    if same is not None:
        _LAYOUTS[same] = [ax.get_position() for ax in fig.axes]
    return buffer.getvalue()


_LAYOUTS: dict[object, list] = {}


def pixels(image: Tensor) -> np.ndarray:
    """(3, H, W) as matplotlib takes it, (H, W, 3)."""
    return image.detach().cpu().movedim(0, -1).numpy()


def show_image(ax: Axes, image: Tensor) -> None:
    """An image or a patch (3, H, W) in a thin frame."""
    ax.imshow(pixels(image), interpolation="nearest")
    frame(ax)


def show_thumbnail(ax: Axes, image: Tensor, at: tuple[float, float], points: float) -> None:
    """A small image, `points` wide whatever the scale of the axes."""
    picture = OffsetImage(pixels(image), zoom=points / image.shape[-1], interpolation="nearest")
    ax.add_artist(AnnotationBbox(picture, at, pad=0.05, bboxprops={"ec": GREY, "lw": 0.6}))


def frame(ax: Axes) -> None:
    """No ticks, and a thin frame, so that white areas do not vanish into the page."""
    ax.set(xticks=[], yticks=[])
    for spine in ax.spines.values():
        spine.set(visible=True, color=GREY, linewidth=0.6)


def show_grid(ax: Axes, image: Tensor, grid: PatchGrid, masked: Sequence[int] | Tensor, first: int | None) -> None:
    """The image with lines between patches, covers over masked ones, and numbers from `first` (None for no numbers)."""
    show_image(ax, image)
    size, covered = grid.patch_size, {int(m) for m in masked}
    for location in range(grid.count):
        row, column = divmod(location, grid.side)
        corner = (column * size - 0.5, row * size - 0.5)
        if location in covered:
            ax.add_patch(Rectangle(corner, size, size, fc="#DDDDDD", ec=GREY, hatch="///", lw=0))
        if first is None:
            continue
        center = (corner[0] + size / 2, corner[1] + size / 2)
        ax.text(*center, str(location + first), ha="center", va="center", fontsize=9 if grid.side < 6 else 7,
                color="white" if location not in covered else "black", weight="bold",
                bbox=dict(boxstyle="round,pad=0.15", fc="black" if location not in covered else "white",
                          ec="none", alpha=0.65))  # fmt: skip
    edges = np.arange(grid.side + 1) * size - 0.5
    for lines in (ax.hlines, ax.vlines):
        lines(edges, -0.5, grid.image_size - 0.5, color="white", lw=1.2, zorder=1.5)
    ax.axis("off")


def show_tile(ax: Axes, patch: Tensor, x: float, y: float, label: str, size: float = 1.0, below: bool = False) -> None:
    """A patch at (x, y), with its label under it; a question mark stands above, unless `below`."""
    show_image(ax.inset_axes((x, y, size, size), transform=ax.transData), patch)
    if label:
        at = (x + size / 2, y + size + 0.08) if below or label != "?" else (x + size / 2, y - 0.02)
        ax.text(
            *at,
            label,
            ha="center",
            va="top" if below or label != "?" else "bottom",
            fontsize=7 if len(label) > 2 else 9,
        )


def show_box(
    ax: Axes, x: float, y: float, width: float, height: float, text: str, color: str, fontsize: float = 10
) -> None:
    """A part of the network: a rounded box with its name."""
    ax.add_patch(
        FancyBboxPatch((x, y), width, height, boxstyle="round,pad=0.02,rounding_size=0.2", fc="white", ec=color, lw=2)
    )
    ax.text(x + width / 2, y + height / 2, text, ha="center", va="center", fontsize=fontsize, color="black")


def show_arrow(ax: Axes, start: tuple[float, float], end: tuple[float, float], label: str = "") -> None:
    """Where data goes."""
    ax.add_patch(
        FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=12, lw=1.2, color="black", shrinkA=0, shrinkB=0)
    )
    if label:
        ax.text((start[0] + end[0]) / 2, (start[1] + end[1]) / 2 - 0.2, label, ha="center", va="bottom", fontsize=9)
