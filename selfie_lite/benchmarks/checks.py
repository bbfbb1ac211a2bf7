"""Does this device compute what it should? Each check says how near two ways of the same thing come; none judges."""

import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import torch

from selfie_lite.benchmarks.ladder import going_on
from selfie_lite.benchmarks.step import bundled_images, peak_memory
from selfie_lite.machine import best_device
from selfie_lite.patches import sample_masks
from selfie_lite.training.device import compiles, has_native_bf16, make_accelerator, prepare_model
from selfie_lite.training.pretrain import PretrainConfig, make_model, pretrain
from selfie_lite.training.randomness import generator_of
from selfie_lite.training.run import read_metrics
from selfie_lite.training.weights import read_checkpoint

TESTS = Path(__file__).resolve().parents[2] / "tests"


def checks(config: PretrainConfig, batches: Sequence[int]) -> dict[str, Callable[[], Any]]:
    """All checks by name, with the network and sizes of `config`; their runs are written to runs/check-…."""
    config = config.updated(
        data="sample", dropout=0.0, held_out=min(500, config.held_out)
    )  # random numbers differ once compiled
    fp32 = config.updated(compile="no", precision="fp32")
    found: dict[str, Callable[[], Any]] = {"tests": gpu_tests}
    if has_native_bf16(best_device()):
        found["bf16_against_fp32"] = partial(one_against_other, fp32.updated(precision="bf16"), fp32)
    if compiles(config, best_device()):
        for one, name in ((config, ""), (fp32, "_fp32")):
            pair = [one.updated(compile=compiling) for compiling in ("yes", "no")]
            found[f"compiled_against_eager{name}"] = partial(one_against_other, *pair)
    found["resumed_against_whole"] = partial(resumed_against_whole, config)
    return found | {"memory_mb": partial(memory, config, batches)}


def loss_and_gradient(config: PretrainConfig) -> tuple[float, torch.Tensor]:
    """Of the first weights on one batch, the same whatever the precision and the memory format: gradient (K,)."""
    accelerator = make_accelerator(config)
    model = prepare_model(make_model(config), config, accelerator).train()
    if compiles(config, accelerator.device):
        model.compile()
    images = bundled_images(config).images[: config.batch_size].to(accelerator.device)
    masks = sample_masks(
        len(images), config.grid, config.num_masked or config.grid.count // 4, generator_of("check"), accelerator.device
    )
    with accelerator.autocast():
        loss = model(images, *masks).loss
    loss.backward()
    gradients = [p.grad.flatten().float().cpu() for p in model.parameters() if p.grad is not None]
    return loss.item(), torch.cat(gradients)


def one_against_other(one: PretrainConfig, other: PretrainConfig) -> dict[str, float]:
    """Loss of both, and how far their gradients are apart, as a part of the other's length."""
    (loss, gradient), (other_loss, other_gradient) = loss_and_gradient(one), loss_and_gradient(other)
    apart = (gradient - other_gradient).norm() / other_gradient.norm()
    return {"loss": loss, "other_loss": other_loss, "gradients_apart": apart.item()}


def resumed_against_whole(config: PretrainConfig, steps: int = 4) -> dict[str, float]:
    """A run of a few steps, against the same run that was ended half-way and gone on with."""
    config = config.updated(steps=steps, warmup_steps=2, eval_every=0, log_every=1, save_every=steps // 2)
    whole, halves = (config.updated(name=f"check-{name}") for name in ("whole", "resumed"))

    class Enough(Exception):
        pass

    def stop(lines: list[dict]) -> None:
        if lines[-1]["step"] > steps // 2:
            raise Enough

    pretrain(going_on(whole))
    with suppress(Enough):
        pretrain(going_on(halves), stop)
    pretrain(going_on(halves))
    one, other = (read_checkpoint(run.folder)[0] for run in (halves, whole))
    losses = [read_metrics(run.folder)[-1]["held_out_loss"] for run in (halves, whole)]
    apart = max((one[name].double() - other[name].double()).abs().max().item() for name in other)
    return {"held_out_loss": losses[0], "other_held_out_loss": losses[1], "largest_difference_of_a_weight": apart}


def memory(config: PretrainConfig, batches: Sequence[int]) -> dict[str, int | str]:
    """MB at the peak of a step, by batch size, up to the first for which there is too little."""
    found: dict[str, int | str] = {}
    for batch in batches:
        try:
            found[str(batch)] = peak_memory(dict(config=config.updated(batch_size=batch)))
        except (RuntimeError, MemoryError):  # torch's own is the first, and so is that of a process that was killed
            found[str(batch)] = "too little"
            break
    return found


def gpu_tests() -> str:
    """What pytest says of the tests that are marked gpu, in one line."""
    if best_device().type == "cpu" or not TESTS.is_dir():
        return "not run: there is no GPU, or no tests beside the library"
    command = [sys.executable, "-m", "pytest", "-m", "gpu", "-n", "0", "-p", "no:cacheprovider", "tests"]
    done = subprocess.run(command, cwd=TESTS.parent, capture_output=True, text=True)
    lines = [line for line in done.stdout.splitlines() if line.strip()] or [done.stderr.strip()[-200:]]
    return lines[-1].strip("= ")
