"""Processes, precision, compilation, and an environment that asks for something else."""

import json
import os
import runpy
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from runs import assert_same, weights_of, workplace  # noqa: F401
from tiny import config

from selfie_lite import SelfieLiteError
from selfie_lite.training.device import compiles, make_accelerator
from selfie_lite.training.pretrain import pretrain

HERE = Path(__file__).parent.parent


TWO = """
    import sys, torch
    sys.path.insert(0, {here!r})
    from tiny import config
    from selfie_lite import load_dataset
    from selfie_lite.patches import sample_masks
    from selfie_lite.training.pretrain import make_model
    from selfie_lite.training.device import make_accelerator, prepare_model
    c = config(sync_batch_norm=True, dropout=0.0)
    accelerator = make_accelerator(c)
    model = prepare_model(make_model(c).double(), c, accelerator)
    wrapped = accelerator.prepare(model)
    images = model.prepare(load_dataset("tiny").images[:8]).double()  # so that only mathematics can differ
    visible, masked = sample_masks(8, model.grid, 4, torch.Generator().manual_seed(0))
    mine = [x.chunk(accelerator.num_processes)[accelerator.process_index] for x in (images, visible, masked)]
    loss = wrapped(*mine).loss
    accelerator.backward(loss)
    loss = accelerator.reduce(loss.detach(), "mean")
    if accelerator.is_main_process:
        result = {{"processes": accelerator.num_processes, "loss": loss, "buffers": dict(model.named_buffers())}}
        result["grads"] = {{name: p.grad for name, p in model.named_parameters()}}
        torch.save(result, sys.argv[1])
    accelerator.end_training()
"""


def launch(processes, *words):
    start = ["-m", "torch.distributed.run", "--nproc-per-node", str(processes), "--standalone"]
    command = [sys.executable, *start[: 0 if processes == 1 else None], *map(str, words)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr[-3000:]
    return done


def test_two_processes_give_the_loss_and_gradients_of_one(tmp_path, monkeypatch):
    (tmp_path / "two.py").write_text(textwrap.dedent(TWO.format(here=str(HERE))))
    monkeypatch.setattr("sys.argv", ["two.py", str(tmp_path / "1.pt")])
    runpy.run_path(str(tmp_path / "two.py"))
    launch(2, tmp_path / "two.py", tmp_path / "2.pt")
    one, two = torch.load(tmp_path / "1.pt"), torch.load(tmp_path / "2.pt")
    assert (one["processes"], two["processes"]) == (1, 2)
    torch.testing.assert_close(one["loss"], two["loss"])
    for kind in ("grads", "buffers"):
        for name, value in one[kind].items():
            torch.testing.assert_close(two[kind][name], value, rtol=1e-8, atol=1e-10, msg=lambda m, n=name: f"{n}: {m}")


def test_two_processes_train_resume_exactly_and_write_once():
    words = [
        "-m",
        "selfie_lite",
        "pretrain",
        "--data",
        "tiny",
        "--image-size",
        "16",
        "--patch-size",
        "4",
        "--batch-size",
        "8",
    ]
    words += [
        "--held-out",
        "8",
        "--steps",
        "8",
        "--save-every",
        "4",
        "--log-every",
        "2",
        "--sync-batch-norm",
        "--precision",
        "fp32",
    ]
    launch(2, *words, "--name", "straight")
    lines = Path("runs/straight/metrics.jsonl").read_text().splitlines()
    assert len([line for line in lines if '"loss"' in line]) == 4, "only one process writes"
    straight = weights_of("runs/straight")
    launch(2, *words, "--name", "straight", "--resume", "4")
    assert_same(straight, weights_of("runs/straight"))


@pytest.mark.skipif(
    not torch.cuda.is_available(), reason="needs a GPU: torch.compile, bfloat16 and resident images there"
)
def test_on_a_gpu_it_learns_compiled_and_resident():
    folder = pretrain(config(steps=100, eval_every=100, save_every=100, batch_size=16, precision="auto"))
    last = json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])
    assert last["held_out_accuracy"] > 0.4


def test_compiled_agrees_with_eager():
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
