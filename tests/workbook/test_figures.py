"""Figures show the numbers they are given, in any geometry, and leave no open figures behind."""

import os
import subprocess
import sys
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from selfie_lite import PatchGrid, Selfie, load_dataset
from selfie_lite.workbook import figures
from selfie_lite.workbook.figures import to_png

generator = torch.Generator().manual_seed(0)


@pytest.fixture(scope="module", params=["32", "224"])
def scene(request):
    small = request.param == "32"
    grid = PatchGrid(32, 8) if small else PatchGrid(224, 32)
    image = load_dataset("sample" if small else "photos").images[:1]
    with torch.no_grad():
        out = Selfie(grid, "resnet18").eval()(image, generator=generator, return_attention=True)
    return image[0], grid, out


def draw_all(image, grid, out):
    visible, masked = out.visible[0], out.masked[0]
    yield figures.draw_images(image.expand(3, -1, -1, -1), ["a", "b", "c"], title="t")
    yield figures.draw_grid(image, grid, masked, first=1)
    yield figures.draw_encoder_decoder(image, grid, visible, masked)
    yield figures.draw_selfie(image, grid, out, asked=1)
    yield figures.draw_logits(out.logits[0], image, grid, masked)
    yield figures.draw_puzzle(image, grid, masked, out.logits[0])
    yield figures.draw_puzzles(image[None], grid, masked[None], {"a": out.logits, "b": out.logits}, ["first"])
    yield figures.draw_attention(image, grid, visible, masked, out.attention[0, :, 0, 0], ["1", "2", "3"], columns=2)
    yield figures.draw_similarities(torch.eye(grid.count), grid)
    yield figures.draw_analogy(image, grid, masked[:4].tolist(), "a [MASK]", "b, c")
    yield figures.draw_stages()
    yield figures.draw_training(range(3), [1.0, 2.0, 1.5], {0: 0.2, 2: 0.3}, 4)
    yield figures.draw_origins({"conv1": (100, True), "layer4": (90_000, False), "fc": (0, False)})


def test_every_figure_draws_and_none_stays_open(scene):
    for figure in draw_all(*scene):
        assert isinstance(figure, Figure)
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        pixels = torch.from_numpy(np.array(canvas.buffer_rgba()))[..., :3]
        assert len(pixels.flatten(0, 1).unique(dim=0)) > 20, "an empty picture"
    assert plt.get_fignums() == []


def test_selfie_bars_are_the_softmax_and_include_the_right_one(scene):
    image, grid, out = scene
    for asked in range(out.masked.shape[1]):
        bars = figures.draw_selfie(image, grid, out, asked=asked).axes[0].child_axes[-1]
        widths = [bar.get_width() for bar in bars.patches]
        labels = [label.get_text() for label in bars.get_yticklabels()]
        right = [width for width, label in zip(widths, labels, strict=True) if "✓" in label]
        assert right == [pytest.approx(out.logits[0, asked].softmax(0)[asked].item())]


def test_a_trained_model_stands_beside_the_untrained_one(scene):
    image, grid, out = scene
    trained = replace(out, logits=20 * torch.eye(out.masked.shape[1])[None])
    sheet = figures.draw_selfie(image, grid, out, trained, asked=1).axes[0]
    chances = [bar.get_width() for bar in sheet.child_axes[-1].patches]
    shown = min(out.masked.shape[1], 6)
    assert len(chances) == 2 * shown and max(chances[:shown]) < 0.9 and max(chances[shown:]) == pytest.approx(1)
    assert "trained: 0.00" in "".join(text.get_text() for text in sheet.texts)


def test_attention_is_the_colour_of_the_mat(scene):
    image, grid, out = scene
    visible, weights = out.visible[0], torch.rand(len(out.visible[0]), generator=generator)
    ax = figures.draw_attention(image, grid, visible, out.masked[0], weights[None], ["a"], asked=[3]).axes[0]
    picture, cell = ax.images[0].get_array(), ax.images[0].get_array().shape[0] // grid.side
    for location, weight in zip(visible.tolist(), weights / weights.max(), strict=True):
        corner = picture[location // grid.side * cell, location % grid.side * cell]
        assert corner.tolist() == list(colormaps["viridis"](weight.item(), bytes=True)[:3])
    assert ax.patches[-1].get_xy() == (3 * cell - 0.5, -0.5), "the asked location is framed"


def test_curves_and_chance_are_what_was_given():
    figure = figures.draw_curves({"a": ([1, 2], [3, 4]), "b": ([1, 2], [5, 6])}, "x", "y", chance=0.25)
    lines = figure.axes[0].get_lines()
    assert [list(line.get_ydata()) for line in lines[:2]] == [[3, 4], [5, 6]]
    assert "chance: 0.25" in [text.get_text() for text in figure.axes[0].get_legend().get_texts()]


def test_puzzle_counts_right_choices(scene):
    image, grid, out = scene
    count = out.masked.shape[1]
    solved = figures.draw_puzzle(image, grid, out.masked[0], torch.eye(count)).axes[2].get_title()
    shifted = figures.draw_puzzle(image, grid, out.masked[0], torch.eye(count).roll(1, dims=1)).axes[2].get_title()
    assert solved == f"put together: {count} of {count} right (solid)" and f"0 of {count}" in shifted
    answers = {"a": torch.eye(count)[None], "b": torch.eye(count).roll(1, dims=1)[None]}
    several = figures.draw_puzzles(image[None], grid, out.masked, answers)
    assert [ax.get_title() for ax in several.axes[2:]] == [f"a\n{count} of {count}", f"b\n0 of {count}"]


def test_fractions_show_every_run_of_every_arm_the_means_and_the_pairs():
    table = [
        {"arm": arm, "labels": labels, "images": int(1000 * labels), "runs": {0: low, 1: low + 0.2}, "mean": low + 0.1}
        for arm, low in (("scratch", 0.2), ("additive", 0.3))
        for labels in (0.1, 1.0)
    ]
    figure = figures.draw_fractions(table, chance=0.1)
    ax = figure.axes[0]
    *lines, chance = [list(line.get_ydata()) for line in ax.get_lines()]
    assert chance == [0.1, 0.1]
    means, pairs = lines[:4], lines[4:]
    assert means == [pytest.approx([mean, mean]) for mean in (0.3, 0.3, 0.4, 0.4)]
    assert pairs == [pytest.approx(pair) for pair in 2 * ([0.2, 0.3], [0.4, 0.5])], "runs of one seed are joined"
    points = [tuple(point) for collection in ax.collections for point in collection.get_offsets().tolist()]
    assert sorted(y for _, y in points) == pytest.approx([0.2] * 2 + [0.3] * 2 + [0.4] * 2 + [0.5] * 2)
    assert len({x for x, _ in points}) == 4, "arms stand beside each other"
    assert [label.get_text() for label in ax.get_xticklabels()] == ["100", "1,000"]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["scratch", "P of additive", "chance: 0.10"]


def test_a_notebook_shows_it_and_no_other_process_needs_a_backend(tmp_path):
    code = (
        "from selfie_lite.workbook.figures import draw_curves\n"
        "figure = draw_curves({'a': ([1, 2], [3, 4])}, 'x', 'y')\n"
        "figure.savefig('curve.png')\n"
        "from IPython.core.interactiveshell import InteractiveShell\n"
        "formats, _ = InteractiveShell().display_formatter.format(figure)\n"
        "assert formats['image/png'].startswith(b'\\x89PNG')\n"
    )
    environment = os.environ | {"MPLBACKEND": "module://matplotlib_inline.backend_inline_of_another_place"}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")


def test_names_of_classes_and_runs_are_text():
    images = torch.zeros(2, 3, 8, 8, dtype=torch.uint8)
    names = ["$\\frac{", "a_$b$"]
    for figure in (
        figures.draw_images(images, names),
        figures.draw_curves({name: ([1, 2], [3, 4]) for name in names}, "x", "y"),
        figures.draw_fractions([{"arm": name, "images": 10, "runs": {0: 0.1}, "mean": 0.1} for name in names], 0.1),
    ):
        assert to_png(figure).startswith(b"\x89PNG")
