"""What tests of runs share: a place to work in with a tiny data set, and looking into what a run left."""

import os
import signal
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny import make_data

from selfie_lite.training.checkpoint import find_checkpoint


@pytest.fixture(autouse=True)
def workplace(tmp_path, monkeypatch):
    monkeypatch.setenv("SELFIE_LITE_DATA", str(tmp_path / "cache"))
    make_data(tmp_path / "cache")
    monkeypatch.chdir(tmp_path)


def weights_of(folder, which="newest"):
    return load_file(find_checkpoint(Path(folder) / "checkpoint", which) / "model.safetensors")


def assert_same(a, b):
    assert a.keys() == b.keys()
    assert [name for name in a if not torch.equal(a[name], b[name])] == []


def stop_after(step, number=signal.SIGTERM):
    """An on_log that sends this process a signal once `step` is logged."""

    def on_log(lines):
        if lines[-1]["step"] == step:
            os.kill(os.getpid(), number)

    return on_log
