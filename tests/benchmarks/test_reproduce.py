"""The plan of `selfie-lite reproduce`, run whole in little: killed twice, gone on with, and what it leaves."""

import json
import signal
import subprocess
import sys
import time

import pytest
from tiny import make_labelled

from selfie_lite.benchmarks import reproduce, scale
from selfie_lite.errors import SelfieLiteError
from selfie_lite.evaluation.results import fraction_table, read_results

SMALL = """
from dataclasses import replace
from selfie_lite import cli
from selfie_lite.benchmarks import scale
from selfie_lite.training.finetune import FINETUNE_PRESETS
from selfie_lite.training.pretrain import PRESETS
for presets in (PRESETS, FINETUNE_PRESETS):
    presets["laptop"] = presets["laptop"].updated(data="colours", batch_size=4, log_every=1)
PRESETS["laptop"] = PRESETS["laptop"].updated(held_out=12)
small = scale.tiny()
small = replace(small, timed={"32": small.timed["32"]}, batches=(4,), images=30, most=4, seconds=0.01)
labels = dict.fromkeys(small.labels, (0.2,))
arms = small.arms | {"ladder": ("location",), "imagenette": ("location",)}
small = replace(small, labels=labels, arms=arms, rates=(1e-3,))
scale.SCALES["tiny"] = lambda: small
cli.main()
"""


def start():
    command = [sys.executable, "-c", SMALL, "reproduce", "--scale", "tiny", "--out", "there", "--minutes", "300"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def wait_for(process, text):
    said = ""
    for line in process.stdout:
        said += line
        if text in line:
            return said
    raise AssertionError(said)


@pytest.mark.timeout(1200)
def test_whole_plan_killed_twice_and_gone_on_with(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SELFIE_LITE_DATA", "cache")  # the caller's folder, wherever the parts run
    make_labelled(tmp_path / "cache", size=32)
    monkeypatch.setenv("SELFIE_LITE_DATA", "cache")
    first = start()
    wait_for(first, "search, location")
    first.send_signal(signal.SIGKILL)
    first.wait()
    lines = (tmp_path / "there/cifar10_pretraining.jsonl").read_text().splitlines()
    plan = json.loads((tmp_path / "there/reproduce.json").read_text())["plans"]["cifar10"]
    second = start()
    said = wait_for(second, "search-scratch")
    assert "check: done" not in said, "it was done before"
    second.send_signal(signal.SIGTERM)
    second.communicate()
    assert second.returncode == 130
    last = start()
    said, _ = last.communicate()
    assert last.returncode == 0, said
    state = json.loads((tmp_path / "there/reproduce.json").read_text())
    assert {part: row["outcome"] for part, row in state["parts"].items()} == dict.fromkeys(reproduce.PARTS, "done"), (
        said
    )
    assert plan.items() <= state["plans"]["cifar10"].items()
    there = (tmp_path / "there/cifar10_pretraining.jsonl").read_text().splitlines()
    assert (
        there[: len(lines)] == lines and len({json.dumps([r["kind"], r["arm"]]) for r in map(json.loads, there)}) == 5
    )
    for part in ("cifar10", "imagenette"):
        rows = fraction_table(read_results(tmp_path / f"there/{part}.jsonl"))
        arms = {row["arm"].removeprefix("runs/ladder-pretrain-") for row in rows}
        assert arms == {"scratch", "location-0"} | ({"additive-0"} if part == "cifar10" else set())
        assert len(json.loads((tmp_path / f"there/{part}.json").read_text())["plan"]["fine_rates"]) == 2
    checked = json.loads((tmp_path / "there/check.json").read_text())
    assert checked["resumed_against_whole"]["largest_difference_of_a_weight"] == 0
    assert "ceiling, 32 pixels" in json.loads((tmp_path / "there/speed.json").read_text())
    assert not list(tmp_path.rglob("*.writing*"))


def test_steps_end_in_time_and_are_compiled_where_that_pays():
    measured = {"eager": 0.5, "compiled": 0.1, "setup": 10.0}
    full = scale.full()
    assert reproduce.steps_in(1000, 2, 2, measured, full) == (4900, "auto")
    assert reproduce.steps_in(1000, 95, 4, measured, full) == (500, "no"), "each run would compile first"
    assert reproduce.steps_in(1000, 2, 2, measured | {"compiled": None}, full) == (1000, "no")
    assert reproduce.steps_in(1, 2, 2, measured, full)[0] == full.least
    assert reproduce.steps_in(10**9, 2, 2, measured, full)[0] == full.most


def test_what_fails_or_has_no_time_is_listed_and_the_rest_goes_on(tmp_path, monkeypatch):
    def too_long(work, seconds):
        time.sleep(60)

    def broken(work, seconds):
        raise RuntimeError("a new card")

    monkeypatch.setattr(reproduce, "PARTS", {"check": too_long, "speed": broken, "ladder": lambda work, seconds: None})
    rows = reproduce.reproduce(tmp_path, 0.1, say=lambda text: None)
    assert {part: (row["outcome"], row["why"][:21]) for part, row in rows.items()} == {
        "check": ("not done", "its time was used up:"), "speed": ("not done", "RuntimeError: a new c"),
        "ladder": ("done", "")
    }  # fmt: skip
    monkeypatch.setitem(reproduce.PARTS, "check", lambda work, seconds: None)
    monkeypatch.setitem(reproduce.PARTS, "ladder", broken)
    rows = reproduce.reproduce(tmp_path, 1, only=["check", "ladder"], say=lambda text: None)
    assert [rows[part]["outcome"] for part in ("check", "ladder")] == ["done", "done"], "what is done stays"
    assert reproduce.reproduce(tmp_path, 0.01, say=lambda text: None)["speed"]["why"] == "no time was left"
    with pytest.raises(SelfieLiteError, match="is of scale full"):
        reproduce.reproduce(tmp_path, 1, scale="tiny")


def test_data_that_are_not_here_are_not_fetched(tmp_path, monkeypatch):
    monkeypatch.setenv("SELFIE_LITE_DATA", str(tmp_path / "empty"))
    monkeypatch.setattr("selfie_lite.data.importing.download_dataset", lambda *_: 1 / 0)
    monkeypatch.setattr("selfie_lite.data.datasets.download_dataset", lambda *_: 1 / 0)
    rows = reproduce.reproduce(tmp_path / "there", only=["cifar10", "imagenette"], say=lambda text: None)
    assert all("is not on this machine" in row["why"] for row in rows.values())


def test_arms_come_in_the_order_of_notebook_08(tmp_path, monkeypatch):
    monkeypatch.setattr(reproduce, "LADDER", tmp_path / "ladder.jsonl")
    assert reproduce.by_worth(["additive", "location"]) == ["additive", "location"]
    line = {"kind": "pretrain", "seed": 0, "budget": {"steps": 3}}
    lines = [line | {"arm": arm, "whole": {"linear": value}} for arm, value in (("additive", 0.4), ("location", 0.5))]
    (tmp_path / "ladder.jsonl").write_text("".join(json.dumps(one) + "\n" for one in lines))
    assert reproduce.by_worth(["additive", "mask_token", "location"]) == ["location", "additive", "mask_token"]
