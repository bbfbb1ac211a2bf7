"""How near two ways of the same thing come: everywhere on a small network, and on a GPU with the real one."""

import os

import pytest
import tiny
import torch

from selfie_lite.benchmarks import checks, devices, public
from selfie_lite.errors import SelfieLiteError
from selfie_lite.training.pretrain import PRESETS

CONFIG = tiny.config(image_size=32, patch_size=8, dropout=0.0, data="sample")


def test_a_run_gone_on_with_is_the_whole_run_and_is_found_the_second_time(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = checks.resumed_against_whole(CONFIG)
    assert found["largest_difference_of_a_weight"] == 0 and found["held_out_loss"] == found["other_held_out_loss"]
    assert checks.resumed_against_whole(CONFIG) == found, "stopped and started again"


def test_gradients_apart():
    same = checks.one_against_other(CONFIG, CONFIG.updated(channels_last=False))
    assert same["loss"] == pytest.approx(same["other_loss"], rel=1e-4) and same["gradients_apart"] < 1e-3
    other = checks.one_against_other(CONFIG, CONFIG.updated(seed=4))
    assert other["gradients_apart"] > 0.1


def test_memory_ends_at_the_first_batch_that_is_too_large(monkeypatch):
    def peak(rung):
        if rung["config"].batch_size > 8:
            raise torch.OutOfMemoryError
        return 100

    monkeypatch.setattr(checks, "peak_memory", peak)
    assert checks.memory(CONFIG, (4, 8, 16, 32)) == {"4": 100, "8": 100, "16": "too little"}


def which(say=print):
    return os.environ.get("CUDA_VISIBLE_DEVICES"), os.getpid()


def fail(say=print):
    raise SelfieLiteError("no")


def test_several_devices_have_a_process_each(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert devices.on_all_devices([which], print) == [(None, os.getpid())]
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,7")
    found = devices.on_all_devices([which] * 8, print)
    assert {device for device, _ in found} <= {"5", "7"} and len(set(found)) <= 2 and os.getpid() not in dict(found)
    with pytest.raises(SelfieLiteError, match="no"):
        devices.on_all_devices([which, fail, which], print)


THEIRS = """
import torch
device, MEAN, STD, FEATURE_SIZE = "cpu", [0.5] * 3, [0.2] * 3, 4
seen = []
class Encoder(torch.nn.Linear):
    def __init__(self, size, layers, positions):
        super().__init__(size, size)
def train_model(model, encoder, optimizer, dataloaders, args):
    open("written", "w").close()
    seen.append([tuple(images.shape) for images, _ in dataloaders["train"]])
"""


def test_the_public_implementation_is_timed_with_its_own_loop(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SelfieLiteError, match=r"has no train_selfie\.py and no preact_resnet\.py"):
        public.against_public(tmp_path, CONFIG, 2, 0.01)
    (tmp_path / "train_selfie.py").write_text(THEIRS)
    (tmp_path / "preact_resnet.py").write_text("import torch\ndef PreActResNet50():\n    return torch.nn.Module()\n")
    images = torch.zeros(10, 3, 32, 32, dtype=torch.uint8)
    public.public_epoch(tmp_path, images, 4)()
    import train_selfie

    assert train_selfie.seen == [[(4, 3, 32, 32), (4, 3, 32, 32), (2, 3, 32, 32)]]
    assert not (tmp_path / "written").exists()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
@pytest.mark.parametrize("name", ["bf16_against_fp32", "compiled_against_eager", "compiled_against_eager_fp32"])
def test_on_a_gpu_precision_and_compilation_change_the_loss_little(name, tmp_path, monkeypatch):
    """Gradients of the first weights are all noise in bfloat16 (on a CPU too: 0.86 apart), so only said, not judged."""
    monkeypatch.chdir(tmp_path)
    found = checks.checks(PRESETS["cifar10"].updated(batch_size=64), (64,))[name]()
    assert found["loss"] == pytest.approx(found["other_loss"], rel=0.01 if name.endswith("eager_fp32") else 0.05)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_on_a_gpu_a_run_gone_on_with_is_near_the_whole_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = PRESETS["cifar10"].updated(batch_size=64, data="sample", held_out=500, compile="no")
    found = checks.resumed_against_whole(config)
    assert found["held_out_loss"] == pytest.approx(found["other_held_out_loss"], rel=0.05)
