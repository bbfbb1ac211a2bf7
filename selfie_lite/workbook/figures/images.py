"""Images, patches, and what is hidden of them."""

from collections.abc import Sequence

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from selfie_lite.patches import PatchGrid, patchify
from selfie_lite.workbook.figures.canvas import (
    ORANGE,
    figure,
    frame,
    on_mats,
    show_frame,
    show_grid,
    show_image,
    show_tiles,
)


def draw_images(
    images: Tensor | Sequence[Tensor],
    titles: Sequence[str] = (),
    columns: int = 8,
    title: str = "",
    size: float = 1.1,
    outlines: Sequence[tuple[int, int, int]] = (),
) -> Figure:
    """Images or patches (n, 3, H, W) uint8 in rows, each with its title, and a square (row, column, side)."""
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
            if i < len(outlines):
                row, column, side = outlines[i]
                ax.add_patch(Rectangle((column - 0.5, row - 0.5), side, side, fill=False, ec=ORANGE, lw=2))
                ax.set(xlim=(-0.5, image.shape[2] - 0.5), ylim=(image.shape[1] - 0.5, -0.5))
        if title:
            fig.suptitle(title, fontsize=10)
    return fig


def draw_grid(
    image: Tensor,
    grid: PatchGrid,
    masked: Sequence[int] | Tensor = (),
    first: int = 0,
    title: str = "",
    framed: Sequence[int] = (),
) -> Figure:
    """One image (3, H, W) uint8 with its patch grid; masked locations are covered and hatched, `framed` ones framed.

    first: the number of the first location (0 in the code, 1 in the paper's example).
    """
    with figure(1, 1, 3.4, 3.4) as (fig, axes):
        show_grid(axes[0, 0], image, grid, masked, first)
        for location in framed:
            show_frame(axes[0, 0], grid, location)
        axes[0, 0].set_title(title)
    return fig


def draw_encoder_decoder(image: Tensor, grid: PatchGrid, visible: Tensor, masked: Tensor, first: int = 0) -> Figure:
    """Side by side: the image (3, H, W), what the encoder gets, what the decoder gets."""
    patches, asked = patchify(image[None], grid)[0], int(masked[0])
    white = torch.full((grid.count, 3), 255, dtype=torch.uint8)
    with figure(1, 3, 9.6, 3.6) as (fig, axes):
        for ax in axes[0]:
            ax.axis("off")
        whole, encoder, decoder = axes[0]
        show_grid(whole, image, grid, masked, first)
        show_frame(whole, grid, asked)
        whole.set_title(f"the image: {len(visible)} patches visible,\n{len(masked)} masked")
        show_grid(encoder, *on_mats(patches, grid, white, -(-grid.patch_size // 8)), masked, first)
        encoder.set_title("the encoder gets visible patches,\neach with its location")
        columns = int(np.ceil(len(masked) ** 0.5))
        decoder.set(xlim=(0, columns), ylim=(columns, 0), aspect="equal")
        order = np.random.default_rng(0).permutation(len(masked))
        show_tiles(decoder, patches[masked[order]], 0, 0, 0.95, columns)
        decoder.set_title(
            f'the decoder gets the question "what belongs\nat {asked + first}?" and the masked patches, shuffled'
        )
    return fig


def draw_feature_maps(stages: dict[str, Tensor], maps: int = 6) -> Figure:
    """The channels of each stage that vary most: {name: (channels, h, w)}. One grey scale a row, with its numbers."""
    size = (maps + 2) * 1.1, len(stages) * 1.2
    with figure(len(stages), maps + 1, *size, width_ratios=[1.4] + [1] * maps) as (fig, axes):
        for row, (name, stage) in zip(axes, stages.items(), strict=True):
            for ax in row:
                ax.axis("off")
            row[0].text(0, 0.5, f"{name}\n{stage.shape[0]} maps of\n{stage.shape[1]}×{stage.shape[2]}", va="center")
            shown = stage[stage.flatten(1).std(dim=1).argsort(descending=True)[:maps]].detach()
            for ax, channel in zip(row[1:], shown, strict=False):
                drawn = ax.imshow(channel.numpy(), cmap="gray", vmin=shown.min(), vmax=shown.max())
                ax.axis("on")
                frame(ax)
            fig.colorbar(drawn, ax=list(row[1:]), fraction=0.05, pad=0.01)
    return fig
