"""The loop: it is exact, and stops whole."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest
import torch
from runs import assert_same, stop_after, weights_of, workplace  # noqa: F401
from tiny import config, make_data

from selfie_lite import Selfie, SelfieLiteError
from selfie_lite.training.checkpoint import (
    find_checkpoint,
    list_checkpoints,
)
from selfie_lite.training.config import RUNS
from selfie_lite.training.pretrain import pretrain
from selfie_lite.training.run import NonFiniteLossError, read_metrics

HERE = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """A run that nothing stopped."""
    place = tmp_path_factory.mktemp("straight")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SELFIE_LITE_DATA", str(place / "cache"))
        patch.chdir(place)
        make_data(place / "cache")
        return place / pretrain(config(name="straight"))


@pytest.mark.parametrize("step", [3, 6, 9])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stopped_by_a_signal_and_resumed_is_bit_for_bit_the_same(step, number, straight):
    handler = signal.getsignal(number)
    stopped = pretrain(config(), on_log=stop_after(step, number))
    assert signal.getsignal(number) is handler
    (newest,) = list_checkpoints(stopped / "checkpoint")[-1:]
    assert int(newest.name) == step + 1, "it saves and leaves at the next step"
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


def test_killed_twenty_times_in_a_row_and_resumed_is_bit_for_bit_the_same(tmp_path):
    settings = dict(steps=120, save_every=1, log_every=4, eval_every=30)
    straight = weights_of(pretrain(config(name="straight", **settings)))
    script = f"""
        import os, random, signal, sys, time
        sys.path.insert(0, {str(HERE)!r})
        import torch
        import torch.utils.tensorboard  # once, here, and not in every child
        from tiny import config
        import selfie_lite.workbook.figures
        from selfie_lite.training.checkpoint import list_checkpoints
        from selfie_lite.training.pretrain import pretrain
        torch.set_num_threads(1)
        settings = {settings!r}
        random.seed(0)
        kills = 0
        while True:
            found = list_checkpoints(config().folder / "checkpoint")
            child = os.fork()
            if child == 0:
                pretrain(config(resume="newest" if found else "", **settings))
                os._exit(0)
            if kills < 20:
                ended = lambda: os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT)
                while list_checkpoints(config().folder / "checkpoint") == found and not ended():
                    time.sleep(0.01)  # until some step of it is done
                time.sleep(random.uniform(0, 0.06))
                os.kill(child, signal.SIGKILL)
            _, status = os.waitpid(child, 0)
            if os.WIFSIGNALED(status):
                kills += 1
            elif kills >= 20 or status != 0:
                sys.exit(f"{{kills}} kills" if status == 0 and kills < 20 else status)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr[-2000:]
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
    with pytest.raises(SelfieLiteError, match="at batch_size 8. Try --batch-size 4"):
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
        patch.setattr(sys.modules["selfie_lite.training.pretrain"], "evaluate_puzzles", broken)
        with pytest.raises(UnreadableImageError, match="a.jpg.* The 5 steps trained so far are saved"):
            pretrain(config())
    folder = pretrain(config(resume="newest"))
    assert_same(weights_of(straight), weights_of(folder))
    assert [line["step"] for line in read_metrics(folder)] == [line["step"] for line in read_metrics(straight)]
