"""What notebooks 00 to 03 say in numbers, against the outputs that stand beside it in the saved notebooks."""

import json
import math
import re
from pathlib import Path

import pytest

NBS = Path(__file__).parents[2] / "nbs"


def notebook(number):
    (path,) = NBS.glob(f"{number}_*.ipynb")
    return {cell["id"]: cell for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]}


def said(number, cell):
    """What a cell has put out, as text."""
    out = notebook(number)[cell]["outputs"]
    return "".join("".join(o.get("text", []) or o["data"]["text/plain"]) for o in out)


def prose(number, cell):
    return " ".join("".join(notebook(number)[cell]["source"]).split())


def numbers(text):
    return [float(n.replace(",", "")) for n in re.findall(r"-?\d[\d,]*\.?\d*", text)]


def row(text, name):
    """The numbers of a table's row."""
    (line,) = (line for line in text.splitlines() if line.startswith(name))
    return numbers(line[len(name) :])


def test_00_the_picture_and_the_glossary():
    assert "untrained: loss 1.3" in said("00", "00-010") and "3 of 4 right" in said("00", "00-010")
    assert row(said("03", "03-b01"), "as they are")[1] == pytest.approx(0.6, abs=0.05), "six questions in ten"
    assert "about even" in prose("00", "00-009") and all(0.15 < n < 0.35 for n in numbers(said("00", "00-008")))
    glossary = prose("00", "00-b01")
    for count in (4, 12):
        assert f"ln {count} = {math.log(count):.2f}" in glossary


def test_01_what_padding_gives_away():
    table = said("01", "01-027")
    zero, reflect, none = (
        row(table, name) for name in ("zero padding, the paper's", "reflected padding", "no padding")
    )
    assert zero[0] > 0.5 and zero[1] > 0.35, "a wide margin; the second rule finds some bars"
    assert reflect[0] == pytest.approx(0.25, abs=0.03) and reflect[1] > 0.35, "not the bar, but the fold"
    assert none == pytest.approx([0.25, 0.25], abs=0.03)


def test_02_what_it_costs():
    assert row(said("02", "02-011"), "total")[-2:] == [8_543_296, 66.9]
    share, whole, _, patches, at_once = numbers(said("02", "02-013").replace("ResNet-50", "it"))
    assert (share, whole) == (33, 25_557_032) and patches == at_once


def test_02_neighbours_shifts_and_gradients():
    same = {name: row(said("02", "6c6712ab"), name)[0] for name in ("pixels", "random P", "trained P", "chance")}
    assert same["trained P"] > 1.5 * same["pixels"] and abs(same["random P"] - same["pixels"]) < 0.02
    by_encoder, by_decoder = numbers(said("02", "02-b01"))
    assert by_decoder > 4 * by_encoder, "several times as much"


def test_02_batch_normalisation():
    visible, hidden, rows = numbers(said("02", "02-b05"))
    assert visible < hidden < rows / 3, "small at random, larger by location"
    training, evaluation = numbers(said("02", "02-b07"))
    assert 0 < training < 1 and evaluation == 0, "well under a per cent"
    patches, images = (row(said("02", "02-b09"), name) for name in ("patches of new images", "the same images, whole"))
    assert patches == pytest.approx([1, 1, 1], abs=0.1) and images[2] < 0.5, "less than half"


def test_03_locations_and_borders():
    table = said("03", "c9580abe")
    for model in (0, 1):
        near, *_, far = (row(table, f"distance {d}")[-2:][model] for d in range(1, 7))
        assert near > 0.3 and all(row(table, f"distance {d}")[-2:][model] < -0.1 for d in (3, 4, 5)) and -0.15 < far < 0
        assert row(table, "two ends of a row")[model] > row(table, "two ends of a column")[model]
    whole, border, inside = (
        row(said("03", "03-b01"), n) for n in ("as they are", "without the border", "damaged inside")
    )
    for model in (1, 2):
        assert whole[model] - border[model] > 3 * abs(whole[model] - inside[model])
    assert 0.2 < whole[2] - border[2] < 0.3, "about a quarter of all answers"
    assert whole[2] - whole[1] > border[2] - border[1] > 0.1, "its lead shrinks, and it is still well ahead"
    by_distance = said("03", "1674f721")
    assert row(by_distance, "1 ")[1] > 3 > row(by_distance, "1 ")[2] > row(by_distance, "1 ")[0]
