"""Runs side by side."""

import json

import pytest
import tiny

from selfie_lite.errors import SelfieLiteError
from selfie_lite.evaluation.results import compare_runs


def write_run(folder, accuracy, reached=None, **changes):
    """What `compare_runs` reads of a run: its settings, its metrics, its environment."""
    config = tiny.config(name=folder.name, **changes)
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config.to_dict()))
    lines = [{"step": 1, "loss": 2.0}, {"step": 5, "held_out_accuracy": 0.1}]
    lines.append({"step": reached or config.steps, "held_out_accuracy": accuracy})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "environment.json").write_text(json.dumps({"commit": "abc"}))


def test_seeds_share_a_row_and_the_best_comes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, accuracy, changes in [
        ("a", 0.3, {"learning_rate": 0.1, "seed": 0}),
        ("b", 0.5, {"learning_rate": 0.2, "seed": 0, "save_every": 1}),
        ("c", 0.7, {"learning_rate": 0.2, "seed": 1, "keep": 9}),
    ]:
        write_run(tmp_path / "runs" / name, accuracy, **changes)
    result = compare_runs(["a", "b", "runs/c"])
    assert result["rows"] == [
        {"changed": {"learning_rate": 0.2}, "median_accuracy": 0.6, "accuracy": {"0": 0.5, "1": 0.7}},
        {"changed": {"learning_rate": 0.1}, "median_accuracy": 0.3, "accuracy": {"0": 0.3}},
    ]
    assert result["chance"] == 0.25 and result["environment"] == [{"commit": "abc"}]
    assert result["same"]["arch"] == "resnet18" and "seed" not in result["same"]


def test_runs_that_cannot_be_compared_are_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_run(tmp_path / "runs" / "a", 0.3)
    write_run(tmp_path / "runs" / "b", 0.3, reached=11)
    with pytest.raises(SelfieLiteError, match="takes two runs or more, but 1"):
        compare_runs(["a"])
    with pytest.raises(SelfieLiteError, match="runs/b has not reached its last step, 12"):
        compare_runs(["a", "b"])
    with pytest.raises(SelfieLiteError, match="there is no run in runs/c"):
        compare_runs(["a", "c"])
    (tmp_path / "runs/a/config.json").write_text(json.dumps(tiny.finetune_config().to_dict()))
    with pytest.raises(SelfieLiteError, match="runs/a is a fine-tuning run; its result is in runs/a/result.json"):
        compare_runs(["a", "b"])
