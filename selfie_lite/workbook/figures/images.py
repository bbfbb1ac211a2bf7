"""Images, patches, and what is hidden of them."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from selfie_lite.patches import PatchGrid, patchify
from selfie_lite.workbook.figures.canvas import RED, figure, frame, show_grid, show_image, show_tile


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
            show_image(ax, image)
            if i < len(titles):
                ax.set_title(titles[i], fontsize=8, parse_math=False)  # a class may be called $x$
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
        show_grid(axes[0, 0], image, grid, masked, first)
        axes[0, 0].set_title(title)
    return fig


def draw_encoder_decoder(image: Tensor, grid: PatchGrid, visible: Tensor, masked: Tensor, first: int = 0) -> Figure:
    """Side by side: the image (3, H, W), what the encoder gets, what the decoder gets."""
    patches = patchify(image[None], grid)[0]
    shown = min(len(visible), 12)
    with figure(1, 3, 11, 3.6, width_ratios=[1, 1.25, 1.25]) as (fig, axes):
        whole, encoder, decoder = axes[0]
        show_grid(whole, image, grid, masked, first)
        whole.set_title(f"the image: {len(visible)} patches visible, {len(masked)} masked")
        for ax in (encoder, decoder):
            ax.set(xlim=(0, 4.4), ylim=(4.2, 0))
            ax.axis("off")
        encoder.set_title("the encoder gets visible patches,\neach with its location")
        for k, location in enumerate(visible[:shown].tolist()):
            show_tile(
                encoder, patches[location], 0.1 + k % 4 * 1.1, 0.15 + k // 4 * 1.35, f"location {location + first}"
            )
        if len(visible) > shown:
            encoder.text(0.1, 4.15, f"… and {len(visible) - shown} more", fontsize=9)
        decoder.set_title("the decoder gets a location and\nthe masked patches to choose from")
        asked = masked[0].item()
        decoder.text(0.1, 0.45, f"What belongs at location {asked + first}?", fontsize=11, color=RED)
        order = np.random.default_rng(0).permutation(min(len(masked), 12))
        for k, i in enumerate(order):
            show_tile(decoder, patches[masked[i]], 0.1 + k % 4 * 1.1, 0.9 + k // 4 * 1.1, "?", size=0.85)
    return fig


def draw_neighbors(queries: Tensor, neighbors: Tensor, title: str = "") -> Figure:
    """Each row: a patch (Q, 3, S, S) and, right of the bar, its nearest neighbours (Q, K, 3, S, S), nearest first."""
    count = neighbors.shape[1]
    with figure(len(queries), count + 2, (count + 2) * 0.75, len(queries) * 0.8 + 0.5) as (fig, axes):
        for row, query, near in zip(axes, queries, neighbors, strict=True):
            for ax in row:
                ax.axis("off")
            show_image(row[0], query)
            row[1].text(0.5, 0.5, "→", ha="center", va="center", fontsize=14)
            for ax, patch in zip(row[2:], near, strict=True):
                show_image(ax, patch)
        fig.suptitle(title, fontsize=10)
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
                frame(ax)
    return fig
