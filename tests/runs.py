"""What tests of runs share: a place to work in with a tiny data set and a tiny network, processes that start at once,
and looking into what a run left."""

import multiprocessing
import os
import signal
import socket
import sys
import time
from functools import partial
from pathlib import Path

import pytest
import torch
import torchvision
from safetensors.torch import load_file
from tiny import config, finetune_config, make_data
from torchvision.models.resnet import BasicBlock

from selfie_lite import load_dataset, patch_network, sample_masks
from selfie_lite.training.checkpoint import find_checkpoint
from selfie_lite.training.device import make_accelerator, prepare_model
from selfie_lite.training.finetune import finetune
from selfie_lite.training.pretrain import make_model, pretrain

HERE = Path(__file__).resolve().parent
os.environ["PYTHONPATH"] = os.pathsep.join([str(HERE), str(HERE.parent), os.environ.get("PYTHONPATH", "")]).strip(":")
# Children of one server that has imported everything, once: each starts in some hundredths of a second.
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["runs", "selfie_lite.workbook.figures", "tensorboard.compat.proto.event_pb2"])


class TinyResNet(torchvision.models.ResNet):
    """torchvision's ResNet-18 with one block instead of two and an eighth of the channels: same names, a step takes a
    hundredth of a second."""

    def __init__(self, **options):
        super().__init__(BasicBlock, [1, 1, 1, 1], **options)
        self.fc = torch.nn.Linear(64, options["num_classes"])

    def _make_layer(self, block, planes, *rest, **options):
        return super()._make_layer(block, planes // 8, *rest, **options)


def use_tiny_network(patch):
    """Until the end of the test, arch="resnet18" is a tiny network, and a run's curve is not drawn."""
    patch.setitem(patch_network.DIMS, "resnet18", 32)
    patch.setitem(patch_network.NORMS, "group", partial(torch.nn.GroupNorm, 4))
    patch.setattr(torchvision.models, "resnet18", lambda weights=None, **options: TinyResNet(**options))
    patch.setattr("selfie_lite.workbook.figures.to_png", lambda *args, **options: b"a curve")
    patch.setattr("selfie_lite.workbook.figures.draw_training", lambda *args: None)


@pytest.fixture(autouse=True)
def workplace(tmp_path, monkeypatch):
    monkeypatch.setenv("SELFIE_LITE_DATA", str(tmp_path / "cache"))
    make_data(tmp_path / "cache")
    monkeypatch.chdir(tmp_path)
    use_tiny_network(monkeypatch)


def in_processes(count, call, *args, environment=(), wait=True):
    """`call(*args)` in `count` new processes of one launch, in this folder and with the tiny network; what they print
    goes to out.0, out.1 … Gives the processes, all of them ended well if `wait`."""
    launch = {"WORLD_SIZE": count, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port(), "TORCHELASTIC_RUN_ID": "x"}
    processes = []
    for rank in range(count):
        variables = {"SELFIE_LITE_DATA": os.environ["SELFIE_LITE_DATA"]} | dict(environment)
        variables |= launch | {"RANK": rank, "LOCAL_RANK": rank} if count > 1 else {}
        processes.append(FORKS.Process(target=_one, args=(os.getcwd(), variables, rank, call, args)))
        processes[-1].start()
    if wait:
        for process in processes:
            process.join(120)
        assert [process.exitcode for process in processes] == [0] * count, Path("out.0").read_text()[-2000:]
    return processes


def _one(folder, variables, rank, call, args):
    os.chdir(folder)
    os.environ.update({name: str(value) for name, value in variables.items()})
    sys.stdout = sys.stderr = open(f"out.{rank}", "w", buffering=1)
    one_of_a_launch(call, *args)


def one_of_a_launch(call, *args):
    """`call(*args)` with the tiny network, in a process of its own."""
    torch.set_num_threads(1)
    use_tiny_network(pytest.MonkeyPatch())
    call(*args)
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def pretrain_with(settings):
    """For `in_processes`: a run of `config(**settings)`."""
    pretrain(config(**settings))


def loss_and_gradients(file):
    """For `in_processes`: one step's, of images that all processes share out among them."""
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
        result = {"processes": accelerator.num_processes, "loss": loss, "buffers": dict(model.named_buffers())}
        torch.save(result | {"grads": {name: p.grad for name, p in model.named_parameters()}}, file)


def finetune_with(settings):
    """For `in_processes`: a run of `finetune_config(**settings)`."""
    finetune(finetune_config(**settings))


def pretrain_slowly(settings):
    """As `pretrain_with`, so that a signal has time to come."""
    pretrain(config(**settings), on_log=lambda lines: time.sleep(0.5))


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


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
