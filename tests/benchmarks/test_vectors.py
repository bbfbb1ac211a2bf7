"""49 location vectors against 7 + 7: they learn what there is to learn, and a comparison goes on where it was."""

import json

import pytest
import tiny
import torch
from runs import workplace  # noqa: F401

from selfie_lite import PatchGrid
from selfie_lite.benchmarks import vectors
from selfie_lite.training.pretrain import PRESETS

GRID = PatchGrid(28, 4)


@pytest.mark.parametrize("factorized, count", [(True, 14), (False, 49)])
def test_vectors_learn_where_features_say_the_location_and_nothing_where_they_do_not(factorized, count):
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(100, 49, 14, generator=generator)
    places = torch.arange(49)
    rows, columns = torch.eye(7)[places // 7], torch.eye(7)[places % 7]
    found = vectors.learn_vectors(torch.cat([rows, columns], dim=1) + 0.1 * noise, GRID, factorized, 0, 200)
    assert found["accuracy"] > 0.95 and found["number_of_vectors"] == count and found["chance"] == 1 / 12
    assert abs(vectors.learn_vectors(noise, GRID, factorized, 0, 50)["accuracy"] - 1 / 12) < 0.06


def test_only_rows_and_columns_cannot_say_a_diagonal():
    places = torch.arange(49)
    diagonal = (places // 7 == places % 7).float()[None, :, None].repeat(50, 1, 1)  # all that a feature says
    noise = 0.01 * torch.randn(50, 49, 4, generator=torch.Generator().manual_seed(0))
    losses = [
        vectors.learn_vectors(torch.cat([diagonal, noise], 2), GRID, f, 0, 300)["held_out_loss"] for f in (True, False)
    ]
    assert losses[0] > losses[1] + 0.05


def test_a_comparison_has_a_line_for_each_seed_and_form_and_goes_on(tmp_path, monkeypatch):
    tiny.make_data(tmp_path / "more", size=28)
    monkeypatch.setitem(PRESETS, "laptop49", tiny.config(image_size=28, queries="location"))
    arguments = (tmp_path / "new" / "vectors.jsonl", "tiny", "", range(1), 8, 8, 0)
    said = []
    lines = vectors.compare_vectors(*arguments, said.append)
    assert [(line["vectors"], line["number_of_vectors"]) for line in lines] == [
        ("rows and columns", 14),
        ("one a location", 49),
    ]
    assert [line["metrics"][-1]["step"] for line in lines] == [8, 8] and len(said) == 2
    assert vectors.compare_vectors(*arguments, pytest.fail) == lines
    file = arguments[0]
    file.write_text(json.dumps(lines[0]) + "\n")
    assert len(vectors.compare_vectors(*arguments, said.append)) == 2 and len(said) == 3
