"""The plan of `selfie-lite reproduce`, run whole in little: killed twice, gone on with, and what it leaves."""

import json
import signal
import subprocess
import sys

from tiny import make_labelled

from selfie_lite.benchmarks import reproduce
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
small = replace(small, timed={"32": small.timed["32"]}, batches=(4, 8), images=30, most=4, seconds=0.01)
labels = dict.fromkeys(small.labels, (0.2,))
small = replace(small, labels=labels)
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
        assert {row["arm"].split("-")[-2:][0] for row in rows} == {"scratch", "additive", "location"}
        assert len(json.loads((tmp_path / f"there/{part}.json").read_text())["plan"]["fine_rates"]) == 2
    checked = json.loads((tmp_path / "there/check.json").read_text())
    assert checked["resumed_against_whole"]["largest_difference_of_a_weight"] == 0
    assert "ceiling, 32 pixels" in json.loads((tmp_path / "there/speed.json").read_text())
    assert not list(tmp_path.rglob("*.writing*"))
