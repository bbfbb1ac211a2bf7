"""Networks as boxes: the whole of Selfie, what it is like, its two stages, where a classifier's weights come from."""

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
    ORANGE,
    PURPLE,
    RED,
    SKY,
    drawing,
    figure,
    show_arrow,
    show_box,
    show_frame,
    show_grid,
    show_tiles,
)


def draw_analogy(image: Tensor, grid: PatchGrid, masked: list[int], sentence: str, words: str) -> Figure:
    """A sentence with a hole, [MASK], above an image (3, H, W) with holes; beside each what may fill it."""
    fig, ax = drawing(10, 4.6)
    ax.set(xlim=(0, 20), ylim=(9.2, 0))
    for y, title in ((0.5, "BERT"), (3.4, "Selfie")):
        ax.text(0.2, y, title, weight="bold", fontsize=12)
    for k, word in enumerate(sentence.split()):
        hole = word == "[MASK]"
        show_box(ax, 0.3 + 1.9 * k, 1.1, 1.6, 0.9, word, ORANGE if hole else GREY, lw=3 if hole else 1)
    show_arrow(ax, 11.8, 1.55, 13.2, 1.55)
    ax.text(13.4, 0.7, "which word of a fixed vocabulary?", color=RED)
    ax.text(13.4, 1.8, words, fontsize=10, style="italic")
    left = ax.inset_axes((0.3, 3.9, 5.0, 5.0), transform=ax.transData)
    show_grid(left, image, grid, masked, None)
    for location in masked:
        show_frame(left, grid, location)
    show_arrow(ax, 5.6, 6.4, 7.2, 6.4)
    ax.text(7.4, 4.6, "which of the hidden patches, for each hole?", color=RED)
    order = np.random.default_rng(5).permutation(len(masked))
    show_tiles(ax, patchify(image[None], grid)[0][masked][order], 7.4, 5.4, 2.2, len(masked), letters=True)
    ax.text(7.4, 8.7, "other candidates in every image", style="italic")
    return fig


def draw_selfie(
    image: Tensor, grid: PatchGrid, out: SelfieOutput, trained: SelfieOutput | None = None, asked: int = 0
) -> Figure:
    """The whole of Selfie for one image (3, H, W).

    out: a model's output for that image alone. trained: that of a trained one, with the same masks.
    asked: which of the M masked locations the picture follows.
    """
    patches = patchify(image[None], grid)[0]
    visible, masked = out.visible[0].tolist(), out.masked[0].tolist()
    order = np.random.default_rng(5).permutation(len(masked))[:6]
    if asked not in order:  # the right one must be among those shown
        order[-1] = asked
    fig, ax = drawing(13, 6)
    ax.set(xlim=(0, 26), ylim=(12, 0))
    left = ax.inset_axes((0.2, 3.3, 4.6, 4.6), transform=ax.transData)
    show_grid(left, image, grid, masked, 0)
    show_frame(left, grid, masked[asked], RED)
    ax.text(2.5, 2.9, f"{len(masked)} of {grid.count} patches are hidden", ha="center")
    ax.text(0.2, 9.0, f"Which hidden patch belongs\nat location {masked[asked]}?", color=RED, fontsize=11)
    _encoder(ax, patches, visible)
    _decoder(ax, patches[masked][order], len(masked), masked[asked])
    models = {"untrained": out} | ({"trained": trained} if trained else {})
    chances = {name: model.logits[0, asked].detach().softmax(dim=0) for name, model in models.items()}
    _guess(ax, {name: p[order].tolist() for name, p in chances.items()}, order.tolist().index(asked), len(masked))
    losses = "\n".join(f"{name}: {p[asked].log().abs():.2f}" for name, p in chances.items())
    show_box(ax, 21.7, 2.9, 4.0, 1.9, f"loss = −ln p(✓)\n{losses}", RED, 9)
    return fig


def _encoder(ax: Axes, patches: Tensor, visible: list[int]) -> None:
    ax.text(8.0, 0.6, f"ENCODER: the {len(visible)} visible patches", ha="center", color=BLUE, weight="bold")
    show_tiles(ax, patches[visible[:12]], 5.9, 0.9, 1.0, 4)
    if len(visible) > 12:
        ax.text(8.0, 4.35, f"… and {len(visible) - 12} more", ha="center", fontsize=8)
    show_box(ax, 11.2, 1.3, 1.9, 2.3, "P\npatch\nnetwork", BLUE)
    show_box(ax, 13.4, 0.3, 2.0, 0.75, "+ e: where", PURPLE, 8)
    show_box(ax, 15.7, 1.3, 2.4, 2.3, "A\nattention\npooling", GREEN)
    show_box(ax, 16.2, 4.5, 1.4, 0.75, "u0", GREEN)
    ax.text(
        18.3, 4.1, f"pooled: {len(visible)} vectors → 1", fontsize=8, ha="center", va="center", backgroundcolor="white"
    )
    show_box(ax, 19.3, 2.0, 1.2, 0.9, "u", GREEN)
    show_arrow(ax, 13.1, 2.45, 15.7, 2.45, "h")
    for ends in (
        (4.8, 4.6, 5.85, 3.2), (10.0, 2.45, 11.2, 2.45), (14.4, 1.05, 14.4, 1.75), (16.9, 4.5, 16.9, 3.6),
        (18.1, 2.45, 19.3, 2.45),
    ):  # fmt: skip
        show_arrow(ax, *ends)


def _decoder(ax: Axes, candidates: Tensor, count: int, asked: int) -> None:
    ax.text(5.7, 7.6, f"DECODER: the {count} hidden patches, shuffled", color=RED, weight="bold")
    start = 10.3 - 1.2 * len(candidates)
    show_tiles(ax, candidates, start, 8.3, 1.15, len(candidates), letters=True)
    if count > len(candidates):
        ax.text(8.0, 10.7, f"{len(candidates)} of {count} are drawn", ha="center", fontsize=8)
    show_box(ax, 11.2, 7.8, 1.9, 2.3, "P\nthe same", BLUE)
    show_box(ax, 14.6, 5.65, 2.9, 0.9, f"e of location {asked}", PURPLE, 8)
    show_box(ax, 18.8, 5.6, 2.2, 1.0, "v = u + e", RED, 9)
    show_box(ax, 18.9, 8.15, 2.0, 1.6, "v · h\ndot\nproducts", GREY, 9)
    show_arrow(ax, 13.1, 8.95, 18.9, 8.95, f"h of each candidate\nnot pooled: {count} stay {count}")
    for ends in (
        (4.8, 7.0, start - 0.1, 8.8), (10.2, 8.95, 11.2, 8.95), (17.5, 6.1, 18.8, 6.1), (19.9, 2.9, 19.9, 5.6),
        (19.9, 6.6, 19.9, 8.15), (20.9, 8.95, 21.75, 8.95), (23.7, 6.1, 23.7, 4.85),
    ):  # fmt: skip
        show_arrow(ax, *ends)


def _guess(ax: Axes, chances: dict[str, list[float]], right: int, choices: int) -> None:
    bars = ax.inset_axes((22.3, 6.8, 2.3, 3.7), transform=ax.transData)
    count, thick = len(chances["untrained"]), 0.8 / len(chances)
    for m, ((name, p), color) in enumerate(zip(chances.items(), (GREY, GREEN), strict=False)):
        at = [k + thick * (m + 0.5) - 0.4 for k in range(count)]
        bars.barh(at, p, thick, color=color, hatch="" if m else "///", edgecolor="white", label=name)
        for y, chance in zip(at, p, strict=True):
            bars.text(1.06, y, f"{chance:.2f}", va="center", fontsize=7)
    bars.set_yticks(range(count), ["abcdef"[k] + (" ✓" if k == right else "") for k in range(count)])
    bars.axvline(1 / choices, color="black", ls=":", lw=1)
    bars.set(xlim=(0, 1), ylim=(count - 0.5, -0.5), xticks=[0, 1])
    bars.set_title("softmax", fontsize=9)
    handles, names = bars.get_legend_handles_labels()
    bars.legend(handles, names, fontsize=7, loc="upper center", bbox_to_anchor=(0.45, -0.12), ncols=1, frameon=False,
                title=f"dotted: chance, 1/{choices}", title_fontsize=7)  # fmt: skip


def draw_stages() -> Figure:
    """Pretraining and fine-tuning on one line of time: what is kept, what is thrown away, what starts fresh."""
    fig, ax = drawing(10, 3.9)
    ax.set(xlim=(0, 20), ylim=(7.8, 0))
    ax.text(0.3, 0.6, "1 · PRETRAINING: images without labels, in patches", weight="bold")
    ax.text(10.9, 0.6, "2 · FINE-TUNING: few labelled images, whole", weight="bold")
    gone = {"ls": "--", "fc": "#EEEEEE"}
    for x, y, width, height, text, color, style in (
        (0.5, 2.7, 2.6, 2.0, "P\n3 blocks of\na ResNet", BLUE, {"fc": "#DDEEF8"}),
        (4.6, 1.6, 4.2, 1.9, "e: location vectors\nA, u0: attention pooling", GREEN, gone),
        (4.6, 5.0, 4.2, 1.0, "which patch belongs here?", RED, gone),
        (11.0, 2.7, 2.6, 2.0, "P\nthe same\nweights", BLUE, {"fc": "#DDEEF8"}),
        (14.3, 2.7, 2.0, 2.0, "block 4\nfresh", ORANGE, {"fc": "#FFF0CC"}),
        (17.0, 2.7, 2.4, 2.0, "classifier\nfresh", ORANGE, {"fc": "#FFF0CC"}),
        (15.6, 5.6, 3.8, 1.0, "which class is it?", RED, {}),
    ):
        show_box(ax, x, y, width, height, text, color, 9, **style)
    for ends in (
        (3.1, 3.2, 4.55, 2.6), (3.1, 3.9, 4.55, 5.4), (6.7, 3.5, 6.7, 4.95),
        (13.6, 3.7, 14.25, 3.7), (16.3, 3.7, 16.95, 3.7), (18.2, 4.7, 18.2, 5.55),
    ):  # fmt: skip
        show_arrow(ax, *ends)
    show_arrow(ax, 1.8, 4.8, 12.3, 4.8, lw=3, color=BLUE, connectionstyle="bar,fraction=0.14")
    ax.text(7.0, 7.2, "P's weights are kept and go on learning; what is dashed is thrown away", color=BLUE, ha="center")
    ax.axvline(10.2, 0.05, 0.95, color=GREY, lw=1, ls=":")
    return fig


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
