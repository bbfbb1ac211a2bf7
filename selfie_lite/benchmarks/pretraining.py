"""How fast a pretraining step is, rung by rung, and how far from what the machine could do."""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch

from selfie_lite.augment import normalize
from selfie_lite.benchmarks.reading import bench_input
from selfie_lite.benchmarks.step import Step, count_operations, peak_memory
from selfie_lite.benchmarks.surroundings import bench_processes
from selfie_lite.benchmarks.timing import Turns, in_turns, speeds, spread
from selfie_lite.errors import SelfieLiteError, require_choice
from selfie_lite.loss import masked_patch_logits
from selfie_lite.machine import environment
from selfie_lite.patches import patchify, sample_masks
from selfie_lite.selfie import Selfie, take
from selfie_lite.training.device import compiles, make_accelerator, prepare_model
from selfie_lite.training.pretrain import PretrainConfig, make_model


def bench_pretraining(
    config: PretrainConfig, parts: Iterable[str], rounds: int = 5, seconds: float = 1.0,
    say: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:  # fmt: skip
    """Measure `config`'s training step; gives what `selfie-lite bench pretrain` writes as JSON.

    Args:
        config: geometry, network and batch size; images are the bundled ones, whatever its `data`.
        parts: of PARTS.
        rounds: how often each candidate is timed.
        seconds: about how long each timing takes; at least one step.
        say: told what is being measured.

    Raises:
        SelfieLiteError: for an unknown part, or fewer than two rounds.
    """
    for part in parts:
        require_choice("part", part, PARTS)
    if rounds < 2 or not seconds > 0:
        raise SelfieLiteError(f"a spread takes 2 rounds or more and some seconds, not {rounds} and {seconds}.")
    result = {"environment": environment(), "threads": torch.get_num_threads(), "rounds": rounds}
    result |= {"config": config.to_dict()}
    turns = partial(in_turns, rounds=rounds, seconds=seconds, say=say)
    with torch._dynamo.config.patch(recompile_limit=64):  # one program, many geometries
        for part in [part for part in PARTS if part in parts]:
            say(part)
            result[part] = PARTS[part](config.updated(steps=10**9), turns)
    return result


def ladder(config: PretrainConfig) -> dict[str, dict[str, Any]]:
    """Each rung adds one thing to the rung before it; the one named default is what `pretrain` does here."""
    slow = config.updated(precision="fp32", channels_last=False, compile="no")
    bf16 = make_accelerator(config).mixed_precision == "bf16"
    fast = config.updated(precision="bf16" if bf16 else "fp32", compile="no")
    rungs: dict[str, dict[str, Any]] = {"plain": dict(config=slow, fused=False, plain_input=True)}
    rungs["images resident as uint8"] = dict(config=slow, fused=False)
    rungs["+ channels-last"] = dict(config=slow.updated(channels_last=True), fused=False)
    if bf16:
        rungs["+ bfloat16"] = dict(config=fast, fused=False)
    rungs["+ fused optimiser"] = dict(config=fast, fused=True)
    rungs["+ torch.compile"] = dict(config=fast.updated(compile="yes"), fused=True)
    return rungs | {"default": dict(config=config)}


def bench_ladder(config: PretrainConfig, turns: Turns) -> list[dict[str, Any]]:
    steps: dict[str, Callable[[], None]] = {}
    failed = {}
    for name, rung in ladder(config).items():
        try:
            step = Step(**rung)
            step()
            steps[name] = step
        except Exception as error:  # torch.compile without a compiler, say: a rung that cannot be climbed here
            if name != "+ torch.compile":
                raise
            failed[name] = str(error).strip().splitlines()[0]
    rows = speeds(turns(steps), config.batch_size, "plain")
    memory = {name: peak_memory(rung) for name, rung in ladder(config).items() if name in rows}
    done: list[dict[str, Any]] = [{"rung": name, **row, "peak_memory_mb": memory[name]} for name, row in rows.items()]
    return done + [{"rung": name, "failed": why} for name, why in failed.items()]


def bench_ceiling(config: PretrainConfig, turns: Turns) -> dict[str, Any]:
    """The whole step against forward and backward of P alone, on patches that lie on the device already."""
    step = Step(config)
    patches = patchify(normalize(next(step.batches)[0]), config.grid)
    model = make_model(config)
    prepare_model(model, config, step.accelerator)
    network = model.patch_network.train()
    if compiles(config, step.accelerator.device):
        network.compile()

    def p_alone() -> None:
        with step.accelerator.autocast():
            features = network(patches)
        features.sum().backward()
        network.zero_grad(set_to_none=True)

    rows = speeds(turns({"P alone": p_alone, "step": step}), config.batch_size, "P alone")
    return {
        "images_per_second": {name: row["images_per_second"] for name, row in rows.items()},
        "step_over_ceiling": rows["step"]["times_P alone"],
        "goal": 0.8 if step.accelerator.device.type == "cpu" else 0.9,
        "multiply_adds_step_over_P": round(count_operations(step)[0] / count_operations(p_alone)[0], 3),
    }


def bench_roofline(config: PretrainConfig, turns: Turns) -> dict[str, Any]:
    """Operations and bytes of the step over this device's rates: no step can take less time than the operations do."""
    step = Step(config)
    step()
    operations, moved = count_operations(step)
    device = step.accelerator.device
    dtype = torch.bfloat16 if step.accelerator.mixed_precision == "bf16" else torch.float32
    side, length = (8192, 2**28) if device.type == "cuda" else (2048, 2**26)
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    source = torch.empty(length, dtype=torch.float32, device=device).fill_(1)
    target = torch.empty_like(source)
    times = turns({"step": step, "matrix product": lambda: a @ b, "copy": lambda: target.copy_(source)})
    matrix_rate = [2 * side**3 / t for t in times["matrix product"]]
    copy_rate = [2 * 4 * length / t for t in times["copy"]]
    by_operations, by_bytes = [operations / rate for rate in matrix_rate], [moved / rate for rate in copy_rate]
    return {
        "operations": operations,
        "bytes_unfused": moved,
        "operations_per_byte": round(operations / moved, 2),
        "precision": str(dtype).removeprefix("torch."),
        "matrix_operations_per_second": spread(matrix_rate),
        "copy_bytes_per_second": spread(copy_rate),
        "step_seconds": spread(times["step"]),
        "seconds_by_operations": spread(by_operations),
        "seconds_by_bytes_unfused": spread(by_bytes),
        "operations_part_of_step": spread(o / t for o, t in zip(by_operations, times["step"], strict=True)),
        "bytes_part_of_step": spread(o / t for o, t in zip(by_bytes, times["step"], strict=True)),
    }


def bench_locations(config: PretrainConfig, turns: Turns) -> dict[str, Any]:
    """All M hidden locations in one pass, against a pass for each of them."""
    step = Step(config)
    model: Selfie = step.accelerator.unwrap_model(step.model).train()
    images = next(step.batches)[0]
    visible, masked = sample_masks(len(images), config.grid, model.num_masked, torch.Generator(), images.device)

    def at_once() -> None:
        with step.accelerator.autocast():
            loss = step.model(images, visible, masked).loss
        loss.backward()

    def one_at_a_time() -> None:
        for i in range(model.num_masked):
            with step.accelerator.autocast():
                loss = loss_of_location(model, images, visible, masked, i) / model.num_masked
            loss.backward()

    rows = speeds(turns({"one at a time": one_at_a_time, "at once": at_once}), len(images), "one at a time")
    return {"masked": model.num_masked, "rows": rows}


def loss_of_location(model: Selfie, images, visible, masked, i: int) -> torch.Tensor:
    """Forward pass for the i-th hidden location of each image alone."""
    features = model.patch_network(patchify(model.prepare(images), model.grid))
    query, _ = model.make_queries(features, visible, masked[:, i : i + 1])  # (B, 1, D)
    candidates = take(features, masked)  # (B, M, D)
    logits = masked_patch_logits(query.expand_as(candidates), candidates)[:, 0]  # (B, M)
    return torch.nn.functional.cross_entropy(logits, torch.full((len(images),), i, device=images.device))


def bench_growth(config: PretrainConfig, turns: Turns) -> list[dict[str, Any]]:
    """Images/s and memory as batch size, M and N grow, one at a time."""
    batch, side, largest = config.batch_size, config.grid.side, config.grid.count // 2
    changes = {f"batch {b}": dict(batch_size=b) for b in (max(1, batch // 4), max(1, batch // 2), batch, 2 * batch)}
    masked = sorted({1, largest, *(m for m in (2, 4, 12, 16) if m < largest)})
    changes |= {f"M {m}": dict(num_masked=m) for m in masked}
    sides = sorted({max(2, side // 2), side, side * 3 // 2})
    changes |= {f"N {side**2}": dict(image_size=side * config.patch_size, num_masked=0) for side in sides}
    configs = {name: config.updated(**change) for name, change in changes.items()}
    counts = {name: c.batch_size for name, c in configs.items()}
    rows = speeds(turns({name: Step(c) for name, c in configs.items()}), counts, f"batch {batch}")
    memory = {name: peak_memory(dict(config=c)) for name, c in configs.items()}
    return [{"changed": name, **row, "peak_memory_mb": memory[name]} for name, row in rows.items()]


PARTS: dict[str, Callable[[PretrainConfig, Turns], Any]] = {
    "ladder": bench_ladder, "ceiling": bench_ceiling, "roofline": bench_roofline, "locations": bench_locations,
    "growth": bench_growth, "processes": bench_processes, "input": bench_input,
}  # fmt: skip
