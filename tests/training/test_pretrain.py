"""Pretraining: it learns, and a run is written whole and can be repeated."""

import json
import math
import shutil
from pathlib import Path

import torch
from runs import assert_same, weights_of, workplace  # noqa: F401
from tiny import config

from selfie_lite import cli
from selfie_lite.training.checkpoint import (
    list_checkpoints,
)
from selfie_lite.training.pretrain import PretrainConfig, make_model, pretrain


def test_a_run_is_written_whole_and_can_be_repeated_from_its_config():
    folder = pretrain(config())
    names = {path.name for path in folder.iterdir()}
    assert names == {
        "config.json",
        "environment.json",
        "metrics.jsonl",
        "checkpoint",
        "tensorboard",
        "README.md",
        "curve.png",
    }
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "loss" in line] == [3, 6, 9, 12]
    assert [line["step"] for line in lines if "held_out_accuracy" in line] == [5, 10, 12]
    assert {"loss", "accuracy", "learning_rate", "images_per_second"} < lines[0].keys()
    assert [int(path.name) for path in list_checkpoints(folder / "checkpoint")] == [4, 8, 12]
    assert "After 12 of 12 steps of 8 images: held-out accuracy" in (folder / "README.md").read_text()
    assert list((folder / "tensorboard").glob("events*"))
    saved = json.loads((folder / "config.json").read_text())
    again = pretrain(PretrainConfig.from_dict(saved | {"name": "again"}))
    assert_same(weights_of(folder), weights_of(again))


def test_it_learns_what_there_is_to_learn():
    folder = pretrain(config(steps=60, eval_every=60, save_every=60, batch_size=16, padding=0))
    last = json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])
    assert last["held_out_accuracy"] > 0.45 and last["held_out_loss"] < math.log(4) - 0.2


def test_command_line(monkeypatch, capsys, tmp_path):
    def run(*words):
        monkeypatch.setattr("sys.argv", ["selfie-lite", "pretrain", *words])
        try:
            cli.main()
        except SystemExit as ended:
            return ended.code
        return 0

    words = ["--data", "tiny", "--image-size", "16", "--patch-size", "4", "--steps", "2", "--batch-size", "8"]
    assert run(*words, "--held-out", "8", "--name", "a", "--no-channels-last") == 0
    assert "runs/a: README.md has the curve" in capsys.readouterr().out
    saved = json.loads(Path("runs/a/config.json").read_text())
    assert saved["steps"] == 2 and saved["channels_last"] is False and saved["arch"] == "resnet18"
    assert run("--config", "runs/a/config.json", "--name", "b") == 0
    assert_same(weights_of("runs/a"), weights_of("runs/b"))
    for mistake, message in {
        ("--preset", "cifar100"): "Did you mean 'cifar10'",
        ("--bath-size", "3"): "--batch-size",
        ("--steps", "many"): "is not a whole number",
        ("--config", "nowhere.json"): "nowhere.json cannot be read",
        ("--name", "a", "--config", "runs/a/config.json"): "already holds a run",
    }.items():
        assert run(*mistake) == 2
        said = " ".join(capsys.readouterr().err.split())
        assert message in said and "Traceback" not in said
    before = weights_of("runs/a")
    shutil.rmtree("runs/a/checkpoint/00000002")
    assert run("--name", "a", "--resume", "newest") == 2, "no checkpoint is left"
    assert "there is no checkpoint in runs/a/checkpoint" in " ".join(capsys.readouterr().err.split())
    assert run("--name", "b", "--resume", "newest") == 0, "the settings are the run's own"
    assert_same(before, weights_of("runs/b"))


def test_initial_length_is_that_of_u_and_of_every_location():
    for length in (0.5, 3.0):
        model = make_model(config(initial_length=length)).eval()
        lengths = model.positions().norm(dim=1)
        assert abs(lengths.mean() / length - 1) < 0.1
        u = model.pool(torch.randn(4, 12, model.pool.dim, generator=torch.Generator().manual_seed(0)))
        torch.testing.assert_close(u.norm(dim=1), torch.full((4,), length), rtol=0.05, atol=0)
