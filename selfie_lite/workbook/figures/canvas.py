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
from matplotlib.patches import FancyBboxPatch, Rectangle
from torch import Tensor
from torchvision.utils import make_grid

from selfie_lite.patches import PatchGrid, unpatchify

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


def to_png(fig: Figure, dpi: int = 80) -> bytes:
    """The figure as PNG, quickly."""
    fig.set_dpi(dpi)
    buffer = io.BytesIO()
    FigureCanvasAgg(fig).print_png(buffer, pil_kwargs={"compress_level": 1})
    return buffer.getvalue()


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


def show_frame(ax: Axes, grid: PatchGrid, location: int, color: str = ORANGE, style: str = "-") -> None:
    """A thick frame around one location of a grid that `show_grid` has drawn."""
    corner = np.array([location % grid.side, location // grid.side]) * grid.patch_size - 0.5
    ax.add_patch(
        Rectangle(tuple(corner), grid.patch_size, grid.patch_size, fill=False, ec=color, ls=style, lw=3, zorder=2)
    )


def on_mats(patches: Tensor, grid: PatchGrid, colors: Tensor, mat: int) -> tuple[Tensor, PatchGrid]:
    """The image that patches (N, 3, S, S) make when each lies on a mat of its colour (N, 3); and its grid."""
    size = grid.patch_size + 2 * mat
    cells = colors[:, :, None, None].repeat(1, 1, size, size)
    cells[:, :, mat:-mat, mat:-mat] = patches
    larger = PatchGrid(grid.side * size, size)
    return unpatchify(cells[None], larger)[0], larger


def show_tiles(ax: Axes, patches: Tensor, x: float, y: float, size: float, columns: int, letters: bool = False) -> None:
    """Patches (n, 3, S, S) in rows, each `size` wide, from (x, y) to the right and down; with a, b, … under them."""
    gap = -(-patches.shape[-1] // 12)
    tiles = make_grid(patches, columns, padding=gap, pad_value=255)
    pixel = size / (patches.shape[-1] + gap)
    inset = ax.inset_axes((x, y, tiles.shape[2] * pixel, tiles.shape[1] * pixel), transform=ax.transData)
    show_image(inset, tiles)
    inset.axis("off")
    for k in range(len(patches) * letters):
        ax.text(x + (k + 0.55) * size, y + 1.1 * size, "abcdef"[k], ha="center", va="top", fontsize=9)


def show_box(
    ax: Axes, x: float, y: float, width: float, height: float, text: str, color: str, size: float = 10, **style: Any
) -> None:
    """A part of a network: a rounded box with its name."""
    look: dict[str, Any] = {"boxstyle": "round,pad=0.02,rounding_size=0.2", "fc": "white", "ec": color, "lw": 2}
    ax.add_patch(FancyBboxPatch((x, y), width, height, **look | style))
    ax.text(x + width / 2, y + height / 2, text, ha="center", va="center", fontsize=size)


def show_arrow(ax: Axes, x: float, y: float, to_x: float, to_y: float, label: str = "", **style: Any) -> None:
    """Where data goes."""
    look: dict[str, Any] = {"arrowstyle": "-|>", "lw": 1.2, "color": "black", "shrinkA": 0, "shrinkB": 0}
    ax.annotate("", (to_x, to_y), (x, y), arrowprops=look | style)
    ax.text((x + to_x) / 2, (y + to_y) / 2 - 0.2, label, ha="center", va="bottom", fontsize=9)
