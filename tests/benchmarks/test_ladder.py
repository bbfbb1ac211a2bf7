"""The ladder runs every cell once, goes on where it was stopped, and gives every arm the same."""

import json
from dataclasses import replace

import pytest
import torch

from selfie_lite import SelfieLiteError, load_dataset
from selfie_lite.augment import normalize
from selfie_lite.benchmarks import ladder
from selfie_lite.benchmarks.baselines import BASELINES
from selfie_lite.evaluation.ladder import by_arm, paired_differences, read_ladder
from selfie_lite.training.pretrain import make_model
from selfie_lite.training.results import append_line
from selfie_lite.training.weights import load_patch_network

BUDGET = ladder.Budget(
    data="sample", steps=2, batch_size=8, search_steps=1, learning_rates=(1e-4, 1e-3), probe_images=60, held_out=40,
    test_images=40, puzzles=20, finetune_labels=(100,), finetune_steps=1,
)  # fmt: skip
ONE_ARM = ["untrained", "location"]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ladder")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        ladder.run_ladder(folder / "ladder.jsonl", ONE_ARM, [0], BUDGET, ("pretrain", "finetune"))
        yield folder


def test_every_cell_is_a_line_with_all_that_it_takes_to_repeat_it(place):
    lines = read_ladder(place / "ladder.jsonl")
    cells = [(line["kind"], line["arm"]) for line in lines]
    assert cells == [
        ("search", "location"), ("pretrain", "untrained"), ("pretrain", "location"),
        ("finetune", "untrained"), ("finetune", "location"),
    ]  # fmt: skip
    for line in lines:
        assert line["budget"]["steps"] == 2 and line["environment"]["commit"] and line["cpu_seconds"] > 0
    search, _, trained = lines[:3]
    best = max(search["tried"], key=lambda row: row["linear"])
    assert search["learning_rate"] == best["learning_rate"] == trained["config"]["learning_rate"]
    assert trained["config"]["queries"] == "location" and trained["config"]["steps"] == 2 and trained["chance"] == 0.25
    assert set(trained["puzzle"]) == {"own", "other_image", "other_image_and_holes", "mean_content"}
    for features in ("whole", "patches", "recalibrated"):
        assert 0 <= trained[features]["linear"] <= 1 and trained[features]["rank"] > 1
    assert set(lines[4]["accuracy"]) == {"100"}
    (row,) = paired_differences(by_arm(lines, "pretrain", "whole", "linear"), "untrained")
    assert row["arm"] == "location" and row["df"] == 0


def test_what_is_there_is_not_run_again_and_another_budget_is(place, monkeypatch):
    def never(*_):
        raise AssertionError("run again")

    monkeypatch.setattr(ladder.Ladder, "pretrain", never)
    file = place / "ladder.jsonl"
    ladder.run_ladder(file, ONE_ARM, [0], BUDGET, ("pretrain", "finetune"))
    with pytest.raises(AssertionError, match="run again"):
        ladder.run_ladder(file, ["untrained"], [0], replace(BUDGET, steps=3))
    with pytest.raises(SelfieLiteError, match="Did you mean 'location'"):
        ladder.run_ladder(file, ["locatoin"], [0], BUDGET)


def test_half_a_line_of_a_killed_process_does_not_spoil_the_next(tmp_path):
    file = tmp_path / "new" / "ladder.jsonl"
    append_line(file, {"kind": "search", "arm": "a", "seed": 0, "budget": {}})
    whole = file.read_bytes()
    for rest, arms in (
        (whole[:20], ["a", "b"]),
        (whole[:-1], ["a", "a", "b"]),
    ):  # half a line goes, a whole one is ended
        file.write_bytes(whole + rest)
        append_line(file, {"kind": "search", "arm": "b", "seed": 0, "budget": {}})
        assert [line["arm"] for line in read_ladder(file)] == arms


def test_arms_share_their_first_weights_and_their_puzzles(place):
    one, two = (ladder.Ladder(place / "ladder.jsonl", BUDGET) for _ in range(2))
    assert torch.equal(one.tested, two.tested) and torch.equal(one.probe, two.probe)
    assert not set(one.probe.tolist()) & set(one.held_out.tolist())
    first, second = (make_model(one.config(arm, 1, "x", 1e-3, 2)).patch_network for arm in ("additive", "mask_token"))
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    for arm in ladder.ARMS:
        changed = {
            key for key, value in one.config(arm, 0, "x", 1e-3, 2).to_dict().items()
            if value != one.config("additive", 0, "x", 1e-3, 2).to_dict()[key]
        }  # fmt: skip
        assert changed == set(ladder.ARMS[arm]), arm


@pytest.mark.parametrize("name", BASELINES)
def test_a_baseline_trains_the_same_network_on_as_many_images(name, place, monkeypatch):
    if name == "SimCLR":
        pytest.importorskip("lightly")
    monkeypatch.chdir(place)
    config = ladder.Ladder(place / "x.jsonl", BUDGET).config(name, 0, f"baseline-{name}", 1e-3, 2)
    folder = ladder.pretrain_baseline(name, config)
    trained, fresh = load_patch_network(folder).state_dict(), make_model(config).patch_network.state_dict()
    assert trained.keys() == fresh.keys()
    assert not torch.equal(trained["layer3.1.conv2.weight"], fresh["layer3.1.conv2.weight"])
    saved = json.loads((folder / "config.json").read_text())
    assert saved["batch_size"] * BASELINES[name].views == BUDGET.batch_size


def test_rotation_knows_the_turn_and_turns_the_image():
    model = BASELINES["rotation"]("resnet18").eval()
    seen = []
    model.patch_network.feature_maps = lambda x: seen.append(x) or torch.zeros(len(x), model.patch_network.dim, 1, 1)
    images = load_dataset("sample", "test").images[:16]
    turns = torch.arange(16) % 4
    model(images, turns)
    for image, turn, given in zip(images, turns, seen[0], strict=True):
        torch.testing.assert_close(given, normalize(torch.rot90(image, int(turn), (1, 2))[None])[0])
