"""Networks as boxes: the whole of Selfie, and where a classifier's weights come from."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from selfie_lite.patches import PatchGrid, patchify
from selfie_lite.selfie import SelfieOutput
from selfie_lite.workbook.figures.canvas import (
    BLUE,
    GREEN,
    GREY,
    PURPLE,
    RED,
    SKY,
    drawing,
    figure,
    show_arrow,
    show_box,
    show_grid,
    show_tile,
)


def draw_selfie(image: Tensor, grid: PatchGrid, out: SelfieOutput, asked: int = 0, title: str = "") -> Figure:
    """The whole of Selfie for one image (3, H, W): `out` is the model's output for that image alone.

    asked: which of the M masked locations the picture follows.
    """
    patches = patchify(image[None], grid)[0]
    visible, masked = out.visible[0].tolist(), out.masked[0].tolist()
    probabilities = out.logits[0, asked].detach().softmax(dim=0).tolist()
    order = np.random.default_rng(5).permutation(len(masked))[:6]
    if asked not in order:  # the right one must be among those shown
        order[-1] = asked
    fig, ax = drawing(12, 6.2)
    ax.set(xlim=(0, 24), ylim=(12.4, 0))
    left = ax.inset_axes((0.3, 3.6, 4.2, 4.2), transform=ax.transData)
    show_grid(left, image, grid, masked, 0)
    ax.text(2.4, 3.1, "image: some patches are hidden", ha="center")
    _encoder(ax, patches, visible)
    _decoder(ax, patches, masked, order, masked[asked])
    _guess(ax, [probabilities[i] for i in order], [masked[i] == masked[asked] for i in order], len(masked))
    ax.text(22.6, 12.1, f"dotted: chance, 1/{len(masked)}", ha="center", fontsize=8)
    ax.text(0.4, 9.2, f"Which hidden patch belongs\nat location {masked[asked]}?", color=RED, fontsize=11)
    ax.text(0.4, 0.6, title, weight="bold")
    return fig


def _encoder(ax: Axes, patches: Tensor, visible: list[int]) -> None:
    ax.text(8.0, 0.6, f"ENCODER: the {len(visible)} visible patches", ha="center", color=BLUE, weight="bold")
    per_row = 4
    for k, location in enumerate(visible[:12]):
        show_tile(ax, patches[location], 6.1 + k % per_row * 1.0, 1.0 + k // per_row * 1.0, "", size=0.9)
    if len(visible) > 12:
        ax.text(8.1, 4.35, f"… and {len(visible) - 12} more", ha="center", fontsize=8)
    show_box(ax, 11.3, 1.3, 1.8, 2.3, "P\npatch\nnetwork", BLUE)
    show_box(ax, 15.0, 1.3, 2.2, 2.3, "A\nattention\npooling", GREEN)
    show_box(ax, 15.3, 4.3, 1.6, 0.8, "u0", GREEN)
    show_box(ax, 18.6, 2.0, 1.0, 0.9, "u", GREEN)
    show_box(ax, 13.15, 0.45, 1.9, 0.7, "+ locations e", PURPLE, fontsize=8)
    show_arrow(ax, (10.2, 2.45), (11.3, 2.45))
    show_arrow(ax, (13.1, 2.45), (15.0, 2.45))
    ax.text(13.5, 2.9, "h", ha="center", va="center")
    show_arrow(ax, (14.1, 1.15), (14.1, 2.4))
    show_arrow(ax, (4.6, 4.6), (5.9, 3.4))
    show_arrow(ax, (4.6, 7.4), (5.7, 8.9))
    show_arrow(ax, (16.1, 4.3), (16.1, 3.6))
    show_arrow(ax, (17.2, 2.45), (18.6, 2.45))


def _decoder(ax: Axes, patches: Tensor, masked: list[int], order: np.ndarray, asked: int) -> None:
    ax.text(9.6, 8.0, f"DECODER: the {len(masked)} hidden patches, shuffled", ha="center", color=RED, weight="bold")
    for k, i in enumerate(order):
        show_tile(ax, patches[masked[i]], 6.2 + k * 1.25 - 0.12 * len(order), 8.5, "abcdef"[k], size=1.05, below=True)
    if len(masked) > 6:
        ax.text(9.6, 10.7, f"six of {len(masked)} are drawn", ha="center", fontsize=8)
    show_box(ax, 13.3, 8.2, 1.8, 1.8, "P\nthe same", BLUE)
    show_arrow(ax, (12.3, 9.1), (13.3, 9.1))
    show_box(ax, 18.0, 5.0, 2.2, 0.9, f"+ e of location {asked}", PURPLE, fontsize=8)
    show_box(ax, 18.2, 6.6, 1.8, 0.8, "v = u + e", RED, fontsize=8)
    ax.plot([19.1, 19.1], [2.9, 5.0], color="black", lw=1.2)
    show_arrow(ax, (19.1, 5.9), (19.1, 6.6))
    show_box(ax, 18.1, 8.5, 2.0, 1.2, "v · h\ndot products", GREY, fontsize=9)
    show_arrow(ax, (19.1, 7.4), (19.1, 8.5))
    show_arrow(ax, (15.1, 9.1), (18.1, 9.1), "h of each candidate")
    show_arrow(ax, (20.1, 9.1), (20.7, 9.1))


def _guess(ax: Axes, probabilities: list[float], right: list[bool], choices: int) -> None:
    bars = ax.inset_axes((21.6, 7.3, 2.2, 3.3), transform=ax.transData)
    bars.barh(range(len(right)), probabilities, color=[GREEN if r else GREY for r in right],
              hatch=["//" if r else "" for r in right], edgecolor="white")  # fmt: skip
    for k, probability in enumerate(probabilities):
        bars.text(probability + 0.03, k, f"{probability:.2f}", va="center", fontsize=8)
    bars.set_yticks(range(len(right)), ["abcdef"[k] + (" ✓" if r else "") for k, r in enumerate(right)])
    bars.axvline(1 / choices, color="black", ls=":", lw=1)
    bars.set(xlim=(0, 1), xticks=[0, 0.5, 1], xlabel="softmax probability")
    bars.set_title("the guess", fontsize=10)
    bars.invert_yaxis()


def draw_origins(parts: dict[str, tuple[int, bool]]) -> Figure:
    """The parts of a network from left to right, {name: (number of weights, whether they come from P)}: blue and solid
    from P, orange and hatched fresh. A part's area grows with the number of its weights."""
    sizes = [max(count, 1) ** 0.5 for count, _ in parts.values()]
    sizes = [max(0.07 * max(sizes), size) for size in sizes]  # the smallest can still be seen
    with figure(1, 1, 10, 3) as (fig, axes):
        ax, x = axes[0, 0], 0.0
        gap = 0.12 * max(sizes)
        for size, (name, (count, copied)) in zip(sizes, parts.items(), strict=True):
            ax.add_patch(
                Rectangle((x, -size / 2), size, size, fc=SKY if copied else "#FBE3B0", ec=BLUE if copied else RED,
                          lw=2, ls="-" if copied else "--", hatch="" if copied else "//")
            )  # fmt: skip
            middle = x + size / 2
            ax.text(middle, 0.6 * max(sizes), f"{name}\n{count:,}", ha="center", va="bottom", fontsize=9)
            x += max(size, 0.42 * max(sizes)) + gap
        for label, color, ec, hatch in (("from P", SKY, BLUE, ""), ("fresh", "#FBE3B0", RED, "//")):
            ax.add_patch(Rectangle((0, 0), 0, 0, fc=color, ec=ec, hatch=hatch, label=label))
        ax.legend(loc="lower left", ncols=2, framealpha=1)
        ax.set(xlim=(-gap, x), ylim=(-0.75 * max(sizes), 0.95 * max(sizes)), aspect="equal")
        ax.axis("off")
    return fig
