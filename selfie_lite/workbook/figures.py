"""Every picture of the workbook: plain functions that take tensors and return a matplotlib Figure."""

import io
from collections.abc import Sequence
from contextlib import contextmanager

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.offsetbox import AnnotationBbox, OffsetImage
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Rectangle
from torch import Tensor

from selfie_lite.beliefs import Beliefs
from selfie_lite.patches import PatchGrid, patchify, unpatchify
from selfie_lite.selfie import SelfieOutput

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
STYLE = {
    "font.size": 10,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.dpi": 100,
    "savefig.bbox": "tight",
}


@contextmanager
def figure(rows: int = 1, columns: int = 1, width: float = 9, height: float = 3, **options):
    """A figure and its axes in the workbook's style. It shows where a cell ends with it, and only there."""
    with plt.rc_context(STYLE):
        fig, axes = plt.subplots(rows, columns, figsize=(width, height), layout="constrained", squeeze=False, **options)
        plt.close(fig)
        yield fig, axes


def draw_images(
    images: Tensor, titles: Sequence[str] = (), columns: int = 8, title: str = "", size: float = 1.1
) -> Figure:
    """Images or patches (n, 3, H, W) uint8 in rows, each with its title."""
    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    height = rows * (size + (0.25 if titles else 0.05)) + (0.3 if title else 0)
    with figure(rows, columns, columns * size, height) as (fig, axes):
        for ax in axes.flat:
            ax.axis("off")
        for i, (ax, image) in enumerate(zip(axes.flat, images, strict=False)):
            _image(ax, image)
            if i < len(titles):
                ax.set_title(titles[i], fontsize=8)
        if title:
            fig.suptitle(title, fontsize=10)
    return fig


def draw_grid(
    image: Tensor,
    grid: PatchGrid,
    masked: Sequence[int] | Tensor = (),
    first: int = 0,
    title: str = "",
) -> Figure:
    """One image (3, H, W) uint8 with its patch grid; masked locations are covered and hatched.

    first: the number of the first location (0 in the code, 1 in the paper's example).
    """
    with figure(1, 1, 3.4, 3.4) as (fig, axes):
        _grid(axes[0, 0], image, grid, masked, first)
        axes[0, 0].set_title(title)
    return fig


def draw_encoder_decoder(image: Tensor, grid: PatchGrid, visible: Tensor, masked: Tensor, first: int = 0) -> Figure:
    """Side by side: the image (3, H, W), what the encoder gets, what the decoder gets."""
    patches = patchify(image[None], grid)[0]
    shown = min(len(visible), 12)
    with figure(1, 3, 11, 3.6, width_ratios=[1, 1.25, 1.25]) as (fig, axes):
        whole, encoder, decoder = axes[0]
        _grid(whole, image, grid, masked, first)
        whole.set_title(f"the image: {len(visible)} patches visible, {len(masked)} masked")
        for ax in (encoder, decoder):
            ax.set(xlim=(0, 4.4), ylim=(4.2, 0))
            ax.axis("off")
        encoder.set_title("the encoder gets visible patches,\neach with its location")
        for k, location in enumerate(visible[:shown].tolist()):
            _tile(encoder, patches[location], 0.1 + k % 4 * 1.1, 0.15 + k // 4 * 1.35, f"location {location + first}")
        if len(visible) > shown:
            encoder.text(0.1, 4.15, f"… and {len(visible) - shown} more", fontsize=9)
        decoder.set_title("the decoder gets a location and\nthe masked patches to choose from")
        asked = masked[0].item()
        decoder.text(0.1, 0.45, f"What belongs at location {asked + first}?", fontsize=11, color=RED)
        order = np.random.default_rng(0).permutation(min(len(masked), 12))
        for k, i in enumerate(order):
            _tile(decoder, patches[masked[i]], 0.1 + k % 4 * 1.1, 0.9 + k // 4 * 1.1, "?", size=0.85)
    return fig


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
    with plt.rc_context(STYLE):
        fig = plt.figure(figsize=(12, 6.2))
        plt.close(fig)
        ax = fig.add_axes((0, 0, 1, 1))
    ax.set(xlim=(0, 24), ylim=(12.4, 0))
    ax.axis("off")
    left = ax.inset_axes((0.3, 3.6, 4.2, 4.2), transform=ax.transData)
    _grid(left, image, grid, masked, 0)
    ax.text(2.4, 3.1, "image: some patches are hidden", ha="center")
    # encoder
    ax.text(8.0, 0.6, f"ENCODER: the {len(visible)} visible patches", ha="center", color=BLUE, weight="bold")
    per_row = 4
    for k, location in enumerate(visible[:12]):
        _tile(ax, patches[location], 6.1 + k % per_row * 1.0, 1.0 + k // per_row * 1.0, "", size=0.9)
    if len(visible) > 12:
        ax.text(8.1, 4.35, f"… and {len(visible) - 12} more", ha="center", fontsize=8)
    _box(ax, 11.3, 1.3, 1.8, 2.3, "P\npatch\nnetwork", BLUE)
    _box(ax, 15.0, 1.3, 2.2, 2.3, "A\nattention\npooling", GREEN)
    _box(ax, 15.3, 4.3, 1.6, 0.8, "u0", GREEN)
    _box(ax, 18.6, 2.0, 1.0, 0.9, "u", GREEN)
    _box(ax, 13.15, 0.45, 1.9, 0.7, "+ locations e", PURPLE, fontsize=8)
    _arrow(ax, (10.2, 2.45), (11.3, 2.45))
    _arrow(ax, (13.1, 2.45), (15.0, 2.45))
    ax.text(13.5, 2.9, "h", ha="center", va="center")
    _arrow(ax, (14.1, 1.15), (14.1, 2.4))
    _arrow(ax, (4.6, 4.6), (5.9, 3.4))
    _arrow(ax, (4.6, 7.4), (5.7, 8.9))
    _arrow(ax, (16.1, 4.3), (16.1, 3.6))
    _arrow(ax, (17.2, 2.45), (18.6, 2.45))
    # decoder
    ax.text(9.6, 8.0, f"DECODER: the {len(masked)} hidden patches, shuffled", ha="center", color=RED, weight="bold")
    for k, i in enumerate(order):
        _tile(ax, patches[masked[i]], 6.2 + k * 1.25 - 0.12 * len(order), 8.5, "abcdef"[k], size=1.05, below=True)
    if len(masked) > 6:
        ax.text(9.6, 10.7, f"six of {len(masked)} are drawn", ha="center", fontsize=8)
    _box(ax, 13.3, 8.2, 1.8, 1.8, "P\nthe same", BLUE)
    _arrow(ax, (12.3, 9.1), (13.3, 9.1))
    _box(ax, 18.0, 5.0, 2.2, 0.9, f"+ e of location {masked[asked]}", PURPLE, fontsize=8)
    _box(ax, 18.2, 6.6, 1.8, 0.8, "v = u + e", RED, fontsize=8)
    ax.plot([19.1, 19.1], [2.9, 5.0], color="black", lw=1.2)
    _arrow(ax, (19.1, 5.9), (19.1, 6.6))
    _box(ax, 18.1, 8.5, 2.0, 1.2, "v · h\ndot products", GREY, fontsize=9)
    _arrow(ax, (19.1, 7.4), (19.1, 8.5))
    _arrow(ax, (15.1, 9.1), (18.1, 9.1), "h of each candidate")
    _arrow(ax, (20.1, 9.1), (20.7, 9.1))
    bars = ax.inset_axes((21.6, 7.3, 2.2, 3.3), transform=ax.transData)
    right = [masked[i] == masked[asked] for i in order]
    bars.barh(range(len(order)), [probabilities[i] for i in order], color=[GREEN if r else GREY for r in right],
              hatch=["//" if r else "" for r in right], edgecolor="white")  # fmt: skip
    for k, i in enumerate(order):
        bars.text(probabilities[i] + 0.03, k, f"{probabilities[i]:.2f}", va="center", fontsize=8)
    bars.set_yticks(range(len(order)), ["abcdef"[k] + (" ✓" if r else "") for k, r in enumerate(right)])
    bars.axvline(1 / len(masked), color="black", ls=":", lw=1)
    bars.set(xlim=(0, 1), xticks=[0, 0.5, 1], xlabel="softmax probability")
    bars.set_title("the guess", fontsize=10)
    bars.invert_yaxis()
    ax.text(22.6, 12.1, f"dotted: chance, 1/{len(masked)}", ha="center", fontsize=8)
    ax.text(0.4, 9.2, f"Which hidden patch belongs\nat location {masked[asked]}?", color=RED, fontsize=11)
    ax.text(0.4, 0.6, title, weight="bold")
    return fig


def draw_counts(counts: Tensor, expected: float, deviation: float) -> Figure:
    """How often each location was masked (N,): the counts, and their distance from the expectation against the band of
    two standard deviations that chance allows."""
    with figure(1, 2, 11, 2.8) as (fig, axes):
        left, right = axes[0]
        left.bar(range(len(counts)), counts.tolist(), color=SKY, edgecolor="black", lw=0.5)
        left.axhline(expected, color=RED, ls="--", label=f"expected: {expected:,.0f}")
        left.set(
            xlabel="location",
            ylabel="times masked",
            ylim=(0, 1.35 * expected),
            title="how often each location was masked",
        )
        left.legend(loc="upper right", framealpha=1)
        right.bar(range(len(counts)), (counts - expected).tolist(), color=SKY, edgecolor="black", lw=0.5)
        right.axhspan(-2 * deviation, 2 * deviation, color=GREY, alpha=0.2, label="±2 standard deviations")
        right.set(
            xlabel="location",
            ylabel="counted − expected",
            ylim=(-4 * deviation, 5 * deviation),
            title="the same, closer",
        )
        right.legend(loc="upper right", framealpha=1)
    return fig


def draw_curves(
    curves: dict[str, tuple[Sequence[float], Sequence[float]]],
    x_label: str,
    y_label: str,
    title: str = "",
    chance: float | None = None,
    log_x: bool = False,
    marks: bool = True,
    width: float = 6,
) -> Figure:
    """Curves {name: (x, y)}, told apart by colour, dash and marker; chance as a dotted line."""
    with figure(1, 1, width, 3.4) as (fig, axes):
        ax = axes[0, 0]
        for (color, dash, marker), (name, (x, y)) in zip(LINES, curves.items(), strict=False):
            ax.plot(
                np.asarray(x), np.asarray(y), color=color, ls=dash, marker=marker if marks else None, ms=4, label=name
            )
        if chance is not None:
            ax.axhline(chance, color="black", ls=":", label=f"chance: {chance:.3g}")
        ax.set(xlabel=x_label, ylabel=y_label, title=title)
        if log_x:
            ax.set_xscale("log")
        ax.set_ylim(bottom=min(0, ax.get_ylim()[0]))
        if len(curves) > 1 or chance is not None:
            ax.legend(framealpha=1)
    return fig


def draw_training(steps: Sequence[int], loss: Sequence[float], held_out: dict[int, float], choices: int) -> Figure:
    """Training loss of every step, and accuracy on held-out images {step: accuracy}, each beside chance: that of one
    right answer among `choices`."""
    with figure(1, 2, 10, 3.2) as (fig, axes):
        left, right = axes[0]
        left.plot(steps, loss, color=BLUE, lw=1)
        left.axhline(np.log(choices), color="black", ls=":", label=f"chance: ln {choices} = {np.log(choices):.2f}")
        left.set(xlabel="step", ylabel="loss (nats)", title="training loss")
        left.legend(framealpha=1)
        right.plot(list(held_out), list(held_out.values()), color=GREEN, marker="o")
        right.axhline(1 / choices, color="black", ls=":", label=f"chance: 1/{choices} = {1 / choices:.2f}")
        right.set(xlabel="step", ylabel="accuracy", title="accuracy on held-out images")
        right.legend(framealpha=1)
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


def draw_fractions(table: Sequence[dict], chance: float, title: str = "") -> Figure:
    """Test accuracy against the number of labels: every run as a point, a line through each arm's means.

    Args:
        table: of `evaluate.fraction_table`.
        chance: accuracy of guessing.
    """
    with figure(1, 1, 7, 3.8) as (fig, axes):
        ax = axes[0, 0]
        arms = list(dict.fromkeys(row["arm"] for row in table))
        for i, (arm, (color, dash, marker)) in enumerate(zip(arms, LINES, strict=False)):
            rows = [row for row in table if row["arm"] == arm]
            shift = 1 + 0.03 * (i - (len(arms) - 1) / 2)  # so that points of two arms do not hide each other
            images = [row["images"] * shift for row in rows]
            ax.plot(
                images,
                [row["mean"] for row in rows],
                color=color,
                ls=dash,
                label=arm if arm == "scratch" else f"P of {arm}",
            )
            for x, row in zip(images, rows, strict=True):
                ax.scatter(
                    [x] * len(row["runs"]),
                    list(row["runs"].values()),
                    color=color,
                    marker=marker,
                    s=28,
                    ec="black",
                    lw=0.5,
                )
        ax.axhline(chance, color="black", ls=":", label=f"chance: {chance:.2f}")
        counts = sorted({row["images"] for row in table})
        ax.set_xscale("log")
        ax.set_xticks(counts, [f"{n:,}" for n in counts])
        ax.minorticks_off()
        ax.set(xlabel="labelled images (log scale)", ylabel="test accuracy", title=title, ylim=(0, None))
        ax.legend(framealpha=1, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    return fig


def draw_feature_maps(stages: dict[str, Tensor], maps: int = 6) -> Figure:
    """A few channels of each stage: {name: (channels, h, w)}. Each map has its own grey scale."""
    with figure(len(stages), maps + 1, (maps + 1) * 1.1, len(stages) * 1.2, width_ratios=[1.4] + [1] * maps) as (
        fig,
        axes,
    ):
        for row, (name, stage) in zip(axes, stages.items(), strict=True):
            row[0].axis("off")
            row[0].text(0, 0.5, f"{name}\n{stage.shape[0]} maps of\n{stage.shape[1]}×{stage.shape[2]}", va="center")
            shown = stage[:3] if len(stage) == 3 else stage[stage.flatten(1).std(dim=1).argsort(descending=True)]
            for ax in row[1 + len(shown) :]:
                ax.axis("off")
            for ax, channel in zip(row[1:], shown, strict=False):
                ax.imshow(channel.detach().numpy(), cmap="gray")
                _frame(ax)
    return fig


def draw_matrix(matrix: Tensor, title: str = "", rows: str = "", columns: str = "") -> Figure:
    """A small matrix (R, C) as colours, with its numbers."""
    matrix = matrix.detach().float().numpy()
    with figure(1, 1, 4.6, 3.8) as (fig, axes):
        ax = axes[0, 0]
        shown = ax.imshow(matrix, cmap="viridis")
        ax.set(title=title, xlabel=columns, ylabel=rows)
        middle = (matrix.min() + matrix.max()) / 2
        for i, k in np.ndindex(*matrix.shape):
            ink = "white" if matrix[i, k] < middle else "black"
            ax.text(k, i, f"{matrix[i, k]:.2f}", ha="center", va="center", color=ink, fontsize=9)
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
    matrices = {title: matrix.detach().float().numpy() for title, matrix in matrices.items()}
    largest = max(abs(m).max() for m in matrices.values())
    low, high = limits or (-largest if center else min(m.min() for m in matrices.values()), largest)
    with figure(1, len(matrices), width * len(matrices), 3.1) as (fig, axes):
        for ax, (title, matrix) in zip(axes[0], matrices.items(), strict=True):
            shown = ax.imshow(matrix, cmap="PuOr" if center else "viridis", vmin=low, vmax=high)
            ax.set_title(title)
            ax.set(xticks=[], yticks=[], xlabel=columns, ylabel=rows)
            ax.spines[:].set_visible(False)
        fig.colorbar(shown, ax=list(axes[0]), label=color_label, shrink=0.8)
    return fig


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
            _grid(axes[0, 0], image, grid, masked, 0)
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
            ax.imshow(_pixels(patch), interpolation="nearest", extent=extent)
        ax.set(xlim=(-0.5, len(masked) - 0.5), ylim=(len(masked) + 0.45, -0.5))
        ax.set_title(title or "probability of each candidate (below) at each location")
        if whole or len(masked) > 6:  # else the numbers say it
            fig.colorbar(shown, ax=ax, label="probability", shrink=0.8)
        ax.spines[:].set_visible(False)
    return fig


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
            _grid(ax, grey, grid, masked, 0 if numbers else None)
            extent = (-0.5, grid.image_size - 0.5, grid.image_size - 0.5, -0.5)
            shown = ax.imshow(
                full.view(grid.side, grid.side).numpy(), cmap="viridis", alpha=0.65, vmin=low, vmax=top, extent=extent
            )
            ax.set_title(title)
        fig.colorbar(shown, ax=list(axes.flat), label=color_label, shrink=0.7)
    return fig


def draw_neighbors(queries: Tensor, neighbors: Tensor, title: str = "") -> Figure:
    """Each row: a patch (Q, 3, S, S) and, right of the bar, its nearest neighbours (Q, K, 3, S, S), nearest first."""
    count = neighbors.shape[1]
    with figure(len(queries), count + 2, (count + 2) * 0.75, len(queries) * 0.8 + 0.5) as (fig, axes):
        for row, query, near in zip(axes, queries, neighbors, strict=True):
            for ax in row:
                ax.axis("off")
            _image(row[0], query)
            row[1].text(0.5, 0.5, "→", ha="center", va="center", fontsize=14)
            for ax, patch in zip(row[2:], near, strict=True):
                _image(ax, patch)
        fig.suptitle(title, fontsize=10)
    return fig


def draw_puzzle(image: Tensor, grid: PatchGrid, masked: Tensor, logits: Tensor, whole: bool = True) -> Figure:
    """The image (3, H, W), the image with holes, and every hole filled by the model's choice; wrong ones framed.

    whole: with the second of the three.
    """
    patches = patchify(image[None], grid)[0].clone()
    choice = masked[logits.detach().argmax(dim=1)]
    filled = patches.clone()
    filled[masked] = patches[choice]
    columns = 3 if whole else 2
    with figure(1, columns, 3 * columns, 3.3) as (fig, axes):
        _grid(axes[0, 0], image, grid, (), None)
        axes[0, 0].set_title("the image")
        if whole:
            _grid(axes[0, 1], image, grid, masked, 0)
            axes[0, 1].set_title("what the model sees")
        ax = axes[0, -1]
        _grid(ax, unpatchify(filled[None], grid)[0], grid, (), None)
        for location, chosen in zip(masked.tolist(), choice.tolist(), strict=True):
            row, column = divmod(location, grid.side)
            corner = (column * grid.patch_size - 0.5, row * grid.patch_size - 0.5)
            right = location == chosen
            ax.add_patch(Rectangle(corner, grid.patch_size, grid.patch_size, fill=False, lw=3, zorder=2,
                                   ec=GREEN if right else RED, ls="-" if right else "--"))  # fmt: skip
        hits = (choice == masked).sum().item()
        ax.set_title(f"put together: {hits} of {len(masked)} right (solid)")
    return fig


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
            _grid(axes[0], beliefs.image, beliefs.grid, beliefs.masked, 0)
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
            _thumbnail(ax, patch, (k, -0.2), points=min(34, 190 / count))
        ax.legend(loc="upper right", fontsize=8)
        ax.set_title(("" if whole else f"location {location}:   ") + "✓ right   ▼ the model's choice")
    return fig


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


def _pixels(image: Tensor) -> np.ndarray:
    return image.detach().cpu().movedim(0, -1).numpy()


def _image(ax, image: Tensor) -> None:
    ax.imshow(_pixels(image), interpolation="nearest")
    _frame(ax)


def _thumbnail(ax, image: Tensor, at: tuple[float, float], points: float) -> None:
    picture = OffsetImage(_pixels(image), zoom=points / image.shape[-1], interpolation="nearest")
    ax.add_artist(AnnotationBbox(picture, at, pad=0.05, bboxprops={"ec": GREY, "lw": 0.6}))


def _frame(ax) -> None:
    """No ticks, and a thin frame, so that white areas do not vanish into the page."""
    ax.set(xticks=[], yticks=[])
    for spine in ax.spines.values():
        spine.set(visible=True, color=GREY, linewidth=0.6)


def _grid(ax, image, grid, masked, first) -> None:
    """The image with lines between patches, covers over masked ones, and numbers from `first` (None for no numbers)."""
    _image(ax, image)
    size, masked = grid.patch_size, {int(m) for m in masked}
    for location in range(grid.count):
        row, column = divmod(location, grid.side)
        corner = (column * size - 0.5, row * size - 0.5)
        if location in masked:
            ax.add_patch(Rectangle(corner, size, size, fc="#DDDDDD", ec=GREY, hatch="///", lw=0))
        if first is None:
            continue
        center = (corner[0] + size / 2, corner[1] + size / 2)
        ax.text(*center, str(location + first), ha="center", va="center", fontsize=9 if grid.side < 6 else 7,
                color="white" if location not in masked else "black", weight="bold",
                bbox=dict(boxstyle="round,pad=0.15", fc="black" if location not in masked else "white",
                          ec="none", alpha=0.65))  # fmt: skip
    edges = np.arange(grid.side + 1) * size - 0.5
    for lines in (ax.hlines, ax.vlines):
        lines(edges, -0.5, grid.image_size - 0.5, color="white", lw=1.2, zorder=1.5)
    ax.axis("off")


def _tile(ax, patch, x, y, label, size=1.0, below=False) -> None:
    _image(ax.inset_axes((x, y, size, size), transform=ax.transData), patch)
    if label:
        at = (x + size / 2, y + size + 0.08) if below or label != "?" else (x + size / 2, y - 0.02)
        ax.text(
            *at,
            label,
            ha="center",
            va="top" if below or label != "?" else "bottom",
            fontsize=7 if len(label) > 2 else 9,
        )


def _box(ax, x, y, width, height, text, color, fontsize=10) -> None:
    ax.add_patch(
        FancyBboxPatch((x, y), width, height, boxstyle="round,pad=0.02,rounding_size=0.2", fc="white", ec=color, lw=2)
    )
    ax.text(x + width / 2, y + height / 2, text, ha="center", va="center", fontsize=fontsize, color="black")


def _arrow(ax, start, end, label="") -> None:
    ax.add_patch(
        FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=12, lw=1.2, color="black", shrinkA=0, shrinkB=0)
    )
    if label:
        ax.text((start[0] + end[0]) / 2, (start[1] + end[1]) / 2 - 0.2, label, ha="center", va="bottom", fontsize=9)
