"""The loop: it is exact, and stops whole."""

import json
import os
import random
import signal
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from runs import (  # noqa: F401
    assert_same,
    in_processes,
    pretrain_with,
    stop_after,
    use_tiny_network,
    weights_of,
    workplace,
)
from tiny import config, make_data, make_labelled

from selfie_lite import Selfie, SelfieLiteError, load_dataset
from selfie_lite.evaluation.probes import embed
from selfie_lite.training.checkpoint import (
    find_checkpoint,
    list_checkpoints,
)
from selfie_lite.training.config import RUNS
from selfie_lite.training.features import knn_accuracy
from selfie_lite.training.pretrain import pretrain, split_held_out
from selfie_lite.training.run import NonFiniteLossError, read_metrics
from selfie_lite.training.weights import load_patch_network


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """A run that nothing stopped."""
    place = tmp_path_factory.mktemp("straight")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SELFIE_LITE_DATA", str(place / "cache"))
        patch.chdir(place)
        make_data(place / "cache")
        use_tiny_network(patch)
        return place / pretrain(config(name="straight"))


@pytest.mark.parametrize("step", [3, 6, 9])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stopped_by_a_signal_and_resumed_is_bit_for_bit_the_same(step, number, straight):
    handler = signal.getsignal(number)
    stopped = pretrain(config(), on_log=stop_after(step, number))
    assert signal.getsignal(number) is handler
    (newest,) = list_checkpoints(stopped / "checkpoint")[-1:]
    assert int(newest.name) == step, "it saves and leaves before the next step"
    pretrain(config(resume="newest"))
    assert_same(weights_of(straight), weights_of(stopped))
    optimizers = [torch.load(find_checkpoint(f / "checkpoint") / "state.pt")["optimizer"] for f in (straight, stopped)]
    for one, other in zip(*(optimizer["state"].values() for optimizer in optimizers), strict=True):
        assert all(torch.equal(one[key], other[key]) for key in one)
    without_speed = [
        [{k: v for k, v in json.loads(line).items() if k != "images_per_second"} for line in open(f / "metrics.jsonl")]
        for f in (straight, stopped)
    ]
    assert without_speed[0] == without_speed[1]


def test_stopped_before_the_first_line_of_metrics_it_still_saves_and_goes_on(monkeypatch):
    settings = dict(log_every=50, eval_every=0)
    straight = weights_of(pretrain(config(name="straight", **settings)))
    forward = Selfie.forward

    def forward_and_signal(self, *args, **kwargs):
        os.kill(os.getpid(), signal.SIGTERM)
        return forward(self, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(Selfie, "forward", forward_and_signal)
        folder = pretrain(config(**settings))
    assert [int(path.name) for path in list_checkpoints(folder / "checkpoint")] == [1]
    pretrain(config(resume="newest", **settings))
    assert_same(straight, weights_of(folder))


def test_an_earlier_checkpoint_leads_to_the_same_end():
    straight = weights_of(pretrain(config()))
    pretrain(config(resume="8"))
    assert_same(straight, weights_of("runs/tiny"))


def test_evaluation_and_logging_do_not_change_the_training():
    often, seldom = (
        pretrain(config(eval_every=1, log_every=1)),
        pretrain(config(name="seldom", eval_every=0, log_every=7)),
    )
    assert_same(weights_of(often), weights_of(seldom))


def test_killed_twenty_times_in_a_row_and_resumed_is_bit_for_bit_the_same():
    settings = dict(steps=60, save_every=1, log_every=4, eval_every=15)
    straight = weights_of(pretrain(config(name="straight", **settings)))
    checkpoints, wait, kills = RUNS / "tiny" / "checkpoint", random.Random(0), 0
    while kills < 20:
        found = list_checkpoints(checkpoints)
        (child,) = in_processes(1, pretrain_with, settings | {"resume": "newest" if found else ""}, wait=False)
        while list_checkpoints(checkpoints) == found and child.is_alive():
            time.sleep(0.002)  # until some step of it is done
        time.sleep(wait.uniform(0, 0.03))
        child.kill()
        child.join()
        assert child.exitcode == -signal.SIGKILL, Path("out.0").read_text()[-2000:]
        kills += 1
    pretrain(config(resume="newest", **settings))
    assert_same(straight, weights_of("runs/tiny"))


def test_a_loss_that_is_no_number_ends_the_run_with_the_step(monkeypatch):
    forward = Selfie.forward
    calls = []

    def breaks_at_step_8(self, *args, **kwargs):
        out = forward(self, *args, **kwargs)
        if self.training:
            calls.append(1)
            out.loss = out.loss * (float("nan") if len(calls) == 8 else 1.0)
        return out

    monkeypatch.setattr(Selfie, "forward", breaks_at_step_8)
    with pytest.raises(NonFiniteLossError, match="at step 8, with learning rate 0.0005.*00000004. Try a lower"):
        pretrain(config())
    assert all(value.isfinite().all() for value in weights_of("runs/tiny").values())


def test_out_of_memory_says_which_batch_size_to_try(monkeypatch):
    def full(*args, **kwargs):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(Selfie, "forward", full)
    with pytest.raises(SelfieLiteError, match="at batch_size 8.*--accumulate 2, or try --batch-size 4"):
        pretrain(config())


def test_a_signal_in_another_thread_is_not_ours():
    """Outside the main thread (a notebook's executor, say) Python allows no handlers: training still works."""
    results = []
    thread = threading.Thread(target=lambda: results.append(pretrain(config(steps=2, save_every=2))))
    thread.start()
    thread.join()
    assert results == [RUNS / "tiny"]


def test_what_was_trained_is_saved_before_an_evaluation_that_fails(straight, monkeypatch):
    from selfie_lite.errors import UnreadableImageError

    def broken(*args):
        raise UnreadableImageError("a.jpg: cannot be read.")

    with monkeypatch.context() as patch:
        patch.setattr(sys.modules["selfie_lite.training.pretrain"], "evaluate_held_out", broken)
        with pytest.raises(UnreadableImageError, match="a.jpg.* The 5 steps trained so far are saved"):
            pretrain(config())
    folder = pretrain(config(resume="newest"))
    assert_same(weights_of(straight), weights_of(folder))
    assert [line["step"] for line in read_metrics(folder)] == [line["step"] for line in read_metrics(straight)]


# A batch in parts


def test_a_batch_in_parts_gives_what_the_whole_batch_gives_but_for_batch_normalisation():
    settings = dict(dropout=0.0, optimizer="sgd", learning_rate=0.1, steps=3, eval_every=0, gap=1)
    for norm in ("group", "batch"):
        whole, parts = (
            weights_of(pretrain(config(name=f"{norm}-{n}", norm=norm, accumulate=n, **settings))) for n in (1, 4)
        )
        near = all(torch.allclose(parts[name], tensor, rtol=1e-3, atol=1e-5) for name, tensor in whole.items())
        assert near == (norm == "group")
    lines = [read_metrics(RUNS / f"group-{n}")[0] for n in (1, 4)]
    assert lines[0]["loss"] == pytest.approx(lines[1]["loss"]) and lines[0]["accuracy"] == lines[1]["accuracy"]


def test_a_batch_in_parts_resumes_exactly_and_must_divide():
    straight = weights_of(pretrain(config(accumulate=2)))
    pretrain(config(accumulate=2, resume="4"))
    assert_same(straight, weights_of("runs/tiny"))
    with pytest.raises(SelfieLiteError, match="accumulate is 2 there and 4 here"):
        pretrain(config(accumulate=4, resume="4"))
    with pytest.raises(SelfieLiteError, match="batch_size 8 must divide by 1 processes × 3 parts"):
        pretrain(config(name="other", accumulate=3))


def test_two_processes_add_up_the_parts_of_a_batch():
    settings = dict(dropout=0.0, optimizer="sgd", learning_rate=0.1, steps=2, eval_every=0, norm="group")
    in_processes(2, pretrain_with, settings | {"name": "parts", "accumulate": 2})
    in_processes(2, pretrain_with, settings | {"name": "whole"})
    whole, parts = weights_of("runs/whole"), weights_of("runs/parts")
    assert all(torch.allclose(parts[name], tensor, rtol=1e-3, atol=1e-5) for name, tensor in whole.items())


# Features, watched


def test_features_are_watched_where_there_are_labels_and_change_nothing(tmp_path):
    make_labelled(tmp_path / "cache")
    settings = dict(data="colours", held_out=20, steps=6)
    watched, unwatched = pretrain(config(**settings)), pretrain(config(name="off", knn=False, **settings))
    assert_same(weights_of(watched), weights_of(unwatched))
    found = [line["knn_accuracy"] for line in read_metrics(watched) if "held_out_accuracy" in line]
    assert len(found) == 2 and all(0 < accuracy <= 1 for accuracy in found)
    p, dataset, (_, aside) = load_patch_network("tiny"), load_dataset("colours"), split_held_out(60, 20)
    x, y = embed(p, dataset, aside), dataset.labels[aside].numpy()
    others = [[j for j in range(20) if j != i] for i in range(20)]
    alone = [knn_accuracy(x[o], y[o], x[i : i + 1], y[i : i + 1]) for i, o in enumerate(others)]
    assert found[-1] == pytest.approx(sum(alone) / 20, abs=0.051)
    assert not any(
        "knn_accuracy" in line for line in read_metrics(unwatched) + read_metrics(pretrain(config(name="x")))
    )
    pretrain(config(resume="4", **settings))
    assert_same(weights_of(watched), weights_of(unwatched))
