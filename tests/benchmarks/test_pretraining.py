"""The benchmark counts, divides and orders as it says. Its times are not tested: they are the machine's."""

import json
import sys

import pytest
import tiny
import torch

from selfie_lite import cli, sample_masks
from selfie_lite.benchmarks import pretraining as bench
from selfie_lite.benchmarks import reading, step
from selfie_lite.training.pretrain import PRESETS, make_model


@pytest.fixture
def quick(monkeypatch):
    """Turns that call everything but time nothing much, and no process for each peak of memory."""
    monkeypatch.setattr(bench, "peak_memory", lambda rung: 1)
    calls = []

    def turns(candidates):
        for call in candidates.values():
            call()
        calls.append(list(candidates))
        return {name: [1.0 + i, 2.0 + i] for i, name in enumerate(candidates)}

    turns.calls = calls
    return turns


CONFIG = tiny.config(steps=10**9)


def test_operations_and_bytes_of_a_matrix_product():
    a, b = torch.randn(8, 16), torch.randn(16, 4)
    assert step.count_operations(lambda: a @ b) == (2 * 8 * 16 * 4, 4 * (8 * 16 + 16 * 4 + 8 * 4))
    assert step.count_operations(lambda: a.T) == (0, 0)  # a view moves nothing


@pytest.mark.parametrize("queries", ["additive", "mask_token"])
def test_the_locations_one_at_a_time_are_the_loss_of_all(queries):
    model = make_model(tiny.config(queries=queries)).eval()
    images = torch.randint(256, (3, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    masks = sample_masks(3, model.grid, 4, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        each = [bench.loss_of_location(model, images, *masks, i) for i in range(4)]
        torch.testing.assert_close(torch.stack(each).mean(), model(images, *masks).loss)


def test_the_ladder_climbs_one_thing_at_a_time_to_what_pretrain_does():
    rungs = list(bench.ladder(CONFIG).values())
    assert rungs[0]["plain_input"] and not any(rung.get("plain_input") for rung in rungs[1:])
    assert rungs[-1] == {"config": CONFIG}
    for before, after in zip(rungs[1:], rungs[2:-1], strict=False):
        ours, theirs = after["config"].to_dict() | {"fused": after["fused"]}, before["config"].to_dict()
        theirs["fused"] = before["fused"]
        changed = {key for key in ours if ours[key] != theirs[key]} - {"compile"}
        compiled = after["config"].compile == "yes" != before["config"].compile
        assert len(changed) + compiled <= 1


def test_a_step_of_the_bench_trains(tmp_path):
    for plain_input in (False, True):
        timed = step.Step(CONFIG, plain_input=plain_input)
        before = timed.model.patch_network.conv1.weight.detach().clone()
        timed()
        assert not torch.equal(timed.model.patch_network.conv1.weight, before)


def test_plain_images_are_cropped_flipped_and_normalised():
    images = step.bundled_images(CONFIG).images
    batch, _ = next(step.plain_batches(step.bundled_images(CONFIG), CONFIG, "cpu"))
    assert batch.shape == (8, 3, 16, 16) and batch.dtype == torch.float32 and batch.abs().max() < 3
    assert images.dtype == torch.uint8 and images.shape[1:] == (3, 16, 16)


def test_every_part_gives_its_rows(quick):
    assert [row["rung"] for row in bench.bench_ladder(CONFIG, quick)][0] == "plain"
    ceiling = bench.bench_ceiling(CONFIG, quick)
    assert ceiling["step_over_ceiling"] == {"median": 0.5833, "low": 0.5, "high": 0.6667} and ceiling["goal"] in (
        0.8,
        0.9,
    )
    assert 1 < ceiling["multiply_adds_step_over_P"] < 2
    roofline = bench.bench_roofline(CONFIG, quick)
    assert roofline["operations"] > 1e6 and roofline["seconds_by_operations"]["median"] > 0
    assert bench.bench_locations(CONFIG, quick)["masked"] == 4
    growth = [row["changed"] for row in bench.bench_growth(CONFIG, quick)]
    assert {"batch 2", "batch 16", "M 1", "M 8", "N 4", "N 36"} <= set(growth)


def test_reading_files_beside_the_usual_choice(quick, monkeypatch):
    monkeypatch.setattr(reading, "FILES", 4)
    monkeypatch.setattr(reading.reader_memory, "__defaults__", (500, 2))
    result = bench.bench_input(CONFIG, quick)
    assert {"selfie-lite, 1", "step"} < set(result["rows"]) and "times_the_usual" in result["rows"]["selfie-lite, 1"]
    assert 5000 < result["bytes_an_image"]["file"] < 150_000
    assert result["memory"]["paths"] == 500 and result["memory"]["largest_mb"] > 0


def test_memory_is_that_of_a_process_of_its_own():
    held = torch.ones(2**28, dtype=torch.uint8)  # 256 MB in this process must not count
    own = step.peak_memory(dict(config=CONFIG))
    assert 100 < own < 4000 and held.sum() == 2**28
    larger = step.peak_memory(dict(config=CONFIG.updated(batch_size=512, num_masked=1)))
    assert larger > own + 100


def test_command_line_writes_what_it_measured(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(PRESETS, "laptop", CONFIG.updated(steps=12))
    file = tmp_path / "new" / "bench.json"
    words = ["--part", "locations", "--rounds", "2", "--seconds", "0.01", "--out", str(file), "--batch-size", "4"]
    monkeypatch.setattr(sys, "argv", ["selfie-lite", "bench", "pretrain", *words])
    cli.main()
    result = json.loads(file.read_text())
    assert result["command"].startswith("selfie-lite bench pretrain --part locations")
    assert (
        result["config"]["batch_size"] == 4 and result["rounds"] == 2 and "torch" in result["environment"]["versions"]
    )
    assert set(result["locations"]["rows"]) == {"one at a time", "at once"} and "ladder" not in result
    said = capsys.readouterr().out
    assert "Locations" in said and "one at a time" in said and "written to" in said


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--part", "lader"], "Did you mean 'ladder'"),
        (["--preset", "labtop"], "Did you mean 'laptop'"),
        (["--rounds", "1"], "a whole number from 2 up"),
    ],
)
def test_mistakes_are_told_before_anything_is_measured(words, message, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["selfie-lite", "bench", "pretrain", *words])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2 and message in capsys.readouterr().err and not list(tmp_path.iterdir())
