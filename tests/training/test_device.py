"""Processes, precision, compilation, and an environment that asks for something else."""

import json
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
import torch
from runs import (  # noqa: F401
    assert_same,
    in_processes,
    loss_and_gradients,
    pretrain_with,
    stop_after,
    weights_of,
    workplace,
)
from tiny import config

from selfie_lite import Selfie, SelfieLiteError
from selfie_lite.training import device
from selfie_lite.training.checkpoint import list_checkpoints
from selfie_lite.training.device import choose_device, choose_precision, compiles, make_accelerator
from selfie_lite.training.pretrain import pretrain
from selfie_lite.training.run import read_metrics


def test_two_processes_give_the_loss_and_gradients_of_one():
    loss_and_gradients("1.pt")
    in_processes(2, loss_and_gradients, "2.pt")
    one, two = torch.load("1.pt"), torch.load("2.pt")
    assert (one["processes"], two["processes"]) == (1, 2)
    torch.testing.assert_close(one["loss"], two["loss"])
    for kind in ("grads", "buffers"):
        for name, value in one[kind].items():
            torch.testing.assert_close(two[kind][name], value, rtol=1e-8, atol=1e-10, msg=lambda m, n=name: f"{n}: {m}")


def test_two_processes_stopped_by_the_launcher_go_on_exactly_and_write_once():
    settings = dict(steps=8, save_every=100, log_every=1, eval_every=4, sync_batch_norm=True)
    in_processes(2, pretrain_with, settings | {"name": "straight"})
    lines = read_metrics(Path("runs/straight"))
    assert len([line for line in lines if "loss" in line]) == 8, "only one process writes"
    straight = weights_of("runs/straight")
    script = f"import runs; runs.one_of_a_launch(runs.pretrain_slowly, {settings!r})"
    start = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone", "--no-python", sys.executable]
    launcher = subprocess.Popen([sys.executable, *start, "-c", script], stderr=subprocess.PIPE, text=True)
    while not Path("runs/tiny/metrics.jsonl").is_file() or len(read_metrics(Path("runs/tiny"))) < 3:
        assert launcher.poll() is None, launcher.stderr.read()[-3000:]
        time.sleep(0.05)
    launcher.send_signal(signal.SIGTERM)
    launcher.wait(60)
    (stopped,) = list_checkpoints(Path("runs/tiny/checkpoint"))
    assert 3 <= int(stopped.name) < 8
    in_processes(2, pretrain_with, settings | {"resume": "newest"})
    assert_same(straight, weights_of("runs/tiny"))


@pytest.mark.gpu
@pytest.mark.skipif(
    not torch.cuda.is_available(), reason="needs a GPU: torch.compile, bfloat16 and resident images there"
)
def test_on_a_gpu_it_learns_compiled_and_resident():
    folder = pretrain(config(steps=100, eval_every=100, save_every=100, batch_size=16, precision="auto"))
    last = json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])
    assert last["held_out_accuracy"] > 0.4


def test_compiled_agrees_with_eager(monkeypatch):
    one_block = partial(Selfie, num_blocks=1)  # each more is the same code, compiled again
    monkeypatch.setattr(sys.modules["selfie_lite.training.pretrain"], "Selfie", one_block)
    first, second = (
        pretrain(config(name=name, compile=name, dropout=0.0, steps=3, optimizer="sgd")) for name in ("yes", "no")
    )
    compiled, eager = weights_of(first), weights_of(second)
    for key, value in eager.items():
        if value.is_floating_point():
            torch.testing.assert_close(compiled[key], value, rtol=1e-3, atol=1e-4)


def test_channels_last_agrees_with_channels_first():
    runs = [pretrain(config(name=str(last), channels_last=last, steps=1, log_every=1)) for last in (True, False)]
    first, second = (json.loads(open(run / "metrics.jsonl").readline())["loss"] for run in runs)
    assert first == pytest.approx(second, rel=1e-5)


@pytest.mark.parametrize("name", ["WORLD_SIZE", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE"])
def test_an_environment_that_asks_for_processes_that_are_not_there_is_refused(name, monkeypatch):
    monkeypatch.setenv(name, "4")
    with pytest.raises(SelfieLiteError, match=f"{name}=4.*Unset {name} to run alone, or start them with torchrun"):
        make_accelerator(config())
    monkeypatch.setenv(name, "1")
    monkeypatch.setenv("RANK", "0")
    assert make_accelerator(config()).num_processes == 1


def test_settings_of_accelerate_change_nothing(monkeypatch):
    monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4")
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "fp16")
    monkeypatch.setenv("ACCELERATE_DYNAMO_BACKEND", "EAGER")
    accelerator = make_accelerator(config())
    assert (accelerator.gradient_accumulation_steps, accelerator.mixed_precision) == (1, "no")
    assert make_accelerator(config(precision="bf16")).mixed_precision == "bf16", "another precision in one process"


def test_without_a_compiler_yes_is_refused_and_auto_goes_on(monkeypatch, capsys):
    monkeypatch.setenv("CXX", "/nowhere/g++")
    monkeypatch.setenv("CC", "/nowhere/gcc")
    with pytest.raises(SelfieLiteError, match="there is no compiler .*/nowhere/g.*Install g.*--compile no"):
        compiles(config(compile="yes"), torch.device("cpu"))
    assert compiles(config(compile="auto"), torch.device("cuda")) is False
    assert "not compiled" in capsys.readouterr().out


# Device and precision


def test_a_device_that_is_not_there_is_refused_in_words(monkeypatch):
    assert choose_device("cpu").type == "cpu"
    for wrong in ("cuda:77", "gpu", "CPU", "meta", "cuda:x"):
        with pytest.raises(SelfieLiteError, match=f"there is no device '{wrong}' here. Choose from: auto, cpu"):
            make_accelerator(config(device=wrong))
    monkeypatch.setenv("WORLD_SIZE", "2")
    for name in ("RANK", "LOCAL_RANK", "MASTER_PORT", "MASTER_ADDR", "TORCHELASTIC_RUN_ID"):
        monkeypatch.setenv(name, "0")
    with pytest.raises(SelfieLiteError, match="several processes take a device each, so cuda:1 cannot be had"):
        make_accelerator(config(device="cuda:1"))


def test_the_precision_follows_the_device(monkeypatch):
    cuda, cpu = torch.device("cuda"), torch.device("cpu")
    for native, on_cuda, on_cpu in ((True, "bf16", "bf16"), (False, "fp16", "fp32")):
        monkeypatch.setattr(device, "has_native_bf16", lambda _, native=native: native)
        assert (choose_precision("auto", cuda), choose_precision("auto", cpu)) == (on_cuda, on_cpu)
    assert choose_precision("fp16", cuda) == "fp16"
    with pytest.raises(SelfieLiteError, match="precision fp16 needs a CUDA GPU, but the device is cpu"):
        pretrain(config(precision="fp16"))


def test_float16_scales_the_loss_skips_what_overflows_and_resumes_exactly(monkeypatch):
    monkeypatch.setattr(device, "choose_precision", lambda *_: "fp16")
    plain = torch.amp.GradScaler
    monkeypatch.setattr(torch.amp, "GradScaler", lambda kind: plain(kind, init_scale=2.0**40, growth_interval=3))
    settings = dict(precision="fp16", steps=40, save_every=40, log_every=1, eval_every=0)
    straight = pretrain(config(name="straight", **settings))
    scales = [line["loss_scale"] for line in read_metrics(straight) if "loss_scale" in line]
    assert scales[0] == 2.0**39 and scales[-1] < 2.0**33, "halved at each overflow"
    assert any(after > before for before, after in zip(scales, scales[1:], strict=False)), "doubled after three steps"
    assert all(value.isfinite().all() for value in weights_of(straight).values())
    stopped = pretrain(config(**settings), on_log=stop_after(20))
    state = torch.load(list_checkpoints(stopped / "checkpoint")[0] / "state.pt")
    assert state["scaler"]["scale"] == scales[19]
    pretrain(config(resume="newest", **settings))
    assert_same(weights_of(straight), weights_of(stopped))
    assert [line["loss_scale"] for line in read_metrics(stopped) if "loss_scale" in line] == scales


@pytest.mark.parametrize("store", ["", "True"])
def test_variables_that_a_launcher_left_behind_end_in_a_sentence_at_once(store, monkeypatch):
    left = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}
    if store == "True":
        left |= {"TORCHELASTIC_RUN_ID": "x", "TORCHELASTIC_USE_AGENT_STORE": store}
    for name, value in left.items():
        monkeypatch.setenv(name, value)
    reason = "the launcher does not answer" if store == "True" else "no launcher has set these variables"
    start = time.monotonic()
    with pytest.raises(SelfieLiteError, match=f"RANK=0.*WORLD_SIZE=2.*{reason}.*Unset these variables to run alone"):
        make_accelerator(config())
    assert time.monotonic() - start < 5
