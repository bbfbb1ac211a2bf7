"""What pretraining and fine-tuning share: configuration, optimiser, schedule, batches, and the loop with all that keeps
it safe: run folder, metrics, checkpoints, exact resume, stopping on signals and on bad losses.

Nothing random carries over from step to step: masks, crops, dropout and the order of the images at step s follow from
(seed, s) alone. So a run that is stopped anywhere and continued is the same run, bit for bit, and an evaluation in
between changes nothing.
"""

import hashlib
import json
import math
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields, replace
from functools import lru_cache
from pathlib import Path

import torch
from accelerate import Accelerator, PartialState
from accelerate.state import AcceleratorState
from torch import Tensor, nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from selfie_lite.data.datasets import ImageDataset, ImageFiles
from selfie_lite.errors import SelfieLiteError, require_choice, suggestion
from selfie_lite.machine import best_device, environment
from selfie_lite.training.checkpoint import (
    CheckpointError,
    find_checkpoint,
    list_checkpoints,
    load_checkpoint,
    save_checkpoint,
)

RUNS = Path("runs")


class NonFiniteLossError(SelfieLiteError):
    """The loss is no longer a number."""


def option(default, help: str, flag: str = ""):
    """A field of a configuration, with the help that the command line shows, and its flag if it is not the name."""
    return field(default=default, metadata={"help": help, "flag": flag})


@dataclass(frozen=True)
class TrainingConfig:
    """The settings of any training run. Every field is checked; `from_dict` refuses unknown ones."""

    name: str = option("run", "the run's name: everything is written to runs/NAME")
    data: str = option("sample", "data set by name, or a folder of images")
    steps: int = option(100, "optimiser steps")
    batch_size: int = option(64, "images in a step, over all processes")
    optimizer: str = option("sgd", "sgd (Nesterov momentum 0.9) or adamw")
    learning_rate: float = option(0.1, "at its peak; warm-up is linear, decay a half cosine to 0")
    warmup_steps: int = option(20, "steps of warm-up")
    weight_decay: float = option(1e-4, "not on biases, normalisation and embeddings")
    clip_norm: float = option(1.0, "largest norm of the gradient")
    seed: int = option(0, "of all random numbers")
    log_every: int = option(10, "steps between two lines of metrics")
    eval_every: int = option(100, "steps between two evaluations; 0 for one at the end")
    save_every: int = option(100, "steps between two checkpoints; there is one at the end in any case")
    keep: int = option(3, "checkpoints to keep")
    workers: int = option(4, "processes that read images, if they do not fit in memory")
    precision: str = option("auto", "bf16, fp32, or auto: bf16 where the device has it natively")
    compile: str = option("auto", "yes, no, or auto: torch.compile on a GPU")
    channels_last: bool = option(True, "memory format of the convolutions")
    sync_batch_norm: bool = option(False, "batch statistics over all processes instead of each its own")
    resume: str = option("", "newest, or the step of a checkpoint to go on from")

    FREE = {"log_every", "keep", "workers", "resume", "save_every"}  # may differ when a run is resumed

    def __post_init__(self):
        for f in fields(self):
            value = getattr(self, f.name)
            wanted = type(f.default)
            if wanted is float and type(value) is int:
                object.__setattr__(self, f.name, float(value))
            elif wanted is not type(None) and type(value) is not wanted:
                raise SelfieLiteError(
                    f"{f.name} takes a {wanted.__name__}, for instance {f.default!r}, but is {value!r}."
                )
        for name, least in {"steps": 1, "batch_size": 1, "warmup_steps": 0, "log_every": 1, "eval_every": 0,
                            "save_every": 1, "keep": 1, "workers": 0}.items():  # fmt: skip
            if getattr(self, name) < least:
                raise SelfieLiteError(f"{name} must be {least} or more, but is {getattr(self, name)}.")
        for name in ("learning_rate", "clip_norm"):
            if not 0 < getattr(self, name) < math.inf:
                raise SelfieLiteError(f"{name} must be above 0 and finite, but is {getattr(self, name)}.")
        if not 0 <= self.weight_decay < math.inf:
            raise SelfieLiteError(f"weight_decay must be 0 or more, but is {self.weight_decay}.")
        require_choice("optimizer", self.optimizer, ["sgd", "adamw"])
        require_choice("precision", self.precision, ["auto", "bf16", "fp32"])
        require_choice("compile", self.compile, ["auto", "yes", "no"])
        if not self.name or self.name != Path(self.name).name or self.name.startswith("."):
            raise SelfieLiteError(f"name must be a plain folder name, but is '{self.name}'.")

    @property
    def folder(self) -> Path:
        return RUNS / self.name

    def to_dict(self) -> dict:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict):
        """Raises SelfieLiteError for an unknown key, offering the nearest."""
        known = [f.name for f in fields(cls)]
        for key in values:
            if key not in known:
                raise SelfieLiteError(f"no setting '{key}'.{suggestion(key, known)}")
        return cls(**values)

    def updated(self, **changes):
        return replace(self, **changes)


# Randomness, order of the images, optimiser, schedule


def seed_of(*parts) -> int:
    """A seed for each purpose: 56 bits of the hash of `parts`."""
    return int.from_bytes(hashlib.blake2b(repr(parts).encode(), digest_size=7).digest(), "big")


def generator_of(*parts) -> torch.Generator:
    return torch.Generator().manual_seed(seed_of(*parts))


def batch_indices(count: int, batch_size: int, step: int, seed: int) -> Tensor:
    """The images of step `step` (from 0): each epoch is a new permutation; the last partial batch is dropped."""
    epoch, number = divmod(step, count // batch_size)
    return epoch_order(count, seed, epoch)[number * batch_size : (number + 1) * batch_size]


@lru_cache(maxsize=2)
def epoch_order(count: int, seed: int, epoch: int) -> Tensor:
    return torch.randperm(count, generator=generator_of(seed, "order", epoch))


class Batches:
    """uint8 images and labels on the device, step by step, from any step on.

    A data set whose images lie in memory goes to the device whole, if it fits; else worker processes read it.
    """

    def __init__(
        self, dataset: ImageDataset | ImageFiles, keep: Tensor, config: TrainingConfig, accelerator: Accelerator
    ):
        self.dataset, self.keep, self.config, self.accelerator = dataset, keep, config, accelerator
        if len(keep) < config.batch_size:
            raise SelfieLiteError(f"batch_size {config.batch_size} is more than the {len(keep)} images to train on.")
        if config.batch_size % accelerator.num_processes:
            raise SelfieLiteError(
                f"batch_size {config.batch_size} must divide by {accelerator.num_processes} processes."
            )
        device = accelerator.device
        self.resident = isinstance(dataset, ImageDataset)
        if self.resident and device.type == "cuda":
            free, _ = torch.cuda.mem_get_info(device)
            self.resident = dataset.images.numel() < free // 3
        if self.resident:
            self.images, self.labels = dataset.images.to(device), dataset.labels.to(device)

    def indices(self, step: int) -> Tensor:
        """Where this process's images of a step lie in the data set."""
        everyone = self.keep[batch_indices(len(self.keep), self.config.batch_size, step, self.config.seed)]
        return everyone.chunk(self.accelerator.num_processes)[self.accelerator.process_index]

    def start(self, first: int) -> Iterator[tuple[Tensor, Tensor]]:
        if self.resident:
            for step in range(first, self.config.steps):
                chosen = self.indices(step).to(self.images.device, non_blocking=True)
                yield self.images[chosen], self.labels[chosen]
            return
        steps = (self.indices(step).tolist() for step in range(first, self.config.steps))
        loader = DataLoader(
            self.dataset, batch_sampler=steps, num_workers=self.config.workers, generator=torch.Generator(),
            pin_memory=self.accelerator.device.type == "cuda",
        )  # fmt: skip
        for images, labels in loader:
            yield tuple(x.to(self.accelerator.device, non_blocking=True) for x in (images, labels))


def make_optimizer(model: nn.Module, config: TrainingConfig, fused: bool | None = None) -> torch.optim.Optimizer:
    """Weights of convolutions and linear layers decay; vectors (biases, normalisation, tokens) and positions do not.

    fused: one kernel for all of an update; None for what is faster on the device.
    """
    decay, keep = [], []
    for name, parameter in model.named_parameters():
        (decay if parameter.ndim >= 2 and not name.startswith("positions") else keep).append(parameter)
    groups = [{"params": decay, "weight_decay": config.weight_decay}, {"params": keep, "weight_decay": 0.0}]
    fused = next(model.parameters()).device.type in ("cuda", "cpu") if fused is None else fused
    fused = fused or None  # None leaves torch its own default, False would take its slowest path
    if config.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=config.learning_rate, momentum=0.9, nesterov=True, fused=fused)
    return torch.optim.AdamW(groups, lr=config.learning_rate, fused=fused)


def learning_rate_at(step: int, config: TrainingConfig) -> float:
    """Linear warm-up, then half a cosine down to 0. `step` counts from 0."""
    warmup = min(config.warmup_steps, config.steps)
    if step < warmup:
        return config.learning_rate * (step + 1) / warmup
    return config.learning_rate * (1 + math.cos(math.pi * (step - warmup) / max(1, config.steps - warmup))) / 2


def has_native_bf16(device: torch.device) -> bool:
    """Whether bfloat16 is fast there; on a CPU without it, it is many times slower than float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        tests = (getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
        return any(test() for test in tests if test)
    return False


def make_accelerator(config: TrainingConfig) -> Accelerator:
    """The device, the precision, and the other processes if there are any (`accelerate launch`, `torchrun`)."""
    AcceleratorState._reset_state()  # a notebook may hold an earlier run of another precision
    cpu = best_device().type == "cpu"  # unsaid, torchrun on CPUs gives processes that do not know each other
    device = PartialState(cpu=cpu).device
    bf16 = config.precision == "bf16" or config.precision == "auto" and has_native_bf16(device)
    return Accelerator(mixed_precision="bf16" if bf16 else "no", cpu=cpu)


# The loop


def train(
    config: TrainingConfig,
    accelerator: Accelerator,
    model: nn.Module,
    batches: Batches,
    forward: Callable[[nn.Module, Tensor, Tensor, torch.Generator], dict[str, Tensor]],
    evaluate: Callable[[nn.Module], dict[str, float]],
    report: Callable[[list[dict]], None],
    on_log: Callable[[list[dict]], None] | None = None,
    select: str = "",
) -> list[dict]:
    """Train `model` for `config.steps` steps, or on from a checkpoint; returns the lines of metrics.jsonl.

    Args:
        forward: (model, images, labels, generator) → {"loss": scalar, …}, all of which are logged.
        evaluate: model → numbers to be logged.
        report: called with all lines at the end, to write what a person reads.
        on_log: called with all lines so far whenever one is added.
        select: a number of `evaluate`'s: the weights of the evaluation at which it was highest (the later of equals)
            are those that the model, and the last checkpoint, have in the end. Default: the last weights.

    Raises:
        NonFiniteLossError: with the step, the learning rate and the last good checkpoint.
        CheckpointError: if the checkpoint to resume is missing, damaged or of another configuration.
        SelfieLiteError: if the run exists already, the device runs out of memory, or the disk is full.
    """
    model = prepare_model(model, config, accelerator)
    optimizer = make_optimizer(model, config)
    wrapped, optimizer = accelerator.prepare(model, optimizer)
    run = Run(config, accelerator, on_log)
    first = run.resume(model, optimizer)
    if compiles(config, accelerator.device):
        wrapped.compile()
    losses = torch.zeros(config.log_every, device=accelerator.device)  # of the steps since the last line of metrics
    start, since = time.perf_counter(), first
    bar = tqdm(total=config.steps, initial=first, unit="step", disable=None if accelerator.is_main_process else True)
    with stop_signals() as stop, run, out_of_memory_in_words(config), bar:
        for step, (images, labels) in enumerate(batches.start(first), first):
            result = train_step(config, accelerator, wrapped, optimizer, forward, images, labels, step)
            losses[step % config.log_every] = result["loss"].detach()

            done = step + 1
            last = done == config.steps
            logging = done % config.log_every == 0 or last
            stopping = run.agree(stop, logging)
            saving = done % config.save_every == 0 or last or stopping
            if logging or saving:
                run.require_finite(losses, step)
            if logging:
                now = time.perf_counter()
                speed = (done - since) * config.batch_size / (now - start)
                numbers = {name: accelerator.reduce(value.detach(), "mean").item() for name, value in result.items()}
                numbers |= {"learning_rate": learning_rate_at(step, config), "images_per_second": round(speed, 1)}
                run.log(done, numbers)
                bar.set_postfix({"loss": f"{numbers['loss']:.3f}", "images/s": f"{speed:.0f}"}, refresh=False)
                start, since = now, done
            bar.update()
            if last or config.eval_every and done % config.eval_every == 0:
                pause = time.perf_counter()
                run.log(done, evaluate(model))
                if select:
                    run.keep_best(model, select, last)
                start += time.perf_counter() - pause
            if saving:
                run.save(done, model, optimizer)
            if stopping and not last:
                accelerator.print(f"stopped at step {done} and saved; go on with --name {config.name} --resume newest")
                break
        if accelerator.is_main_process:
            report(run.lines)
    return run.lines


def train_step(
    config: TrainingConfig, accelerator: Accelerator, model: nn.Module, optimizer, forward, images, labels, step: int
) -> dict[str, Tensor]:
    """Step `step` (from 0) on one batch: forward, backward, clip, update. Gives what `forward` gave."""
    torch.manual_seed(seed_of(config.seed, "dropout", step, accelerator.process_index))
    generator = generator_of(config.seed, "masks and crops", step, accelerator.process_index)
    for group in optimizer.param_groups:
        group["lr"] = learning_rate_at(step, config)
    model.train()
    with accelerator.autocast():
        result = forward(model, images, labels, generator)
    optimizer.zero_grad(set_to_none=True)
    accelerator.backward(result["loss"])
    accelerator.clip_grad_norm_(model.parameters(), config.clip_norm)
    optimizer.step()
    return result


def compiles(config: TrainingConfig, device: torch.device) -> bool:
    return config.compile == "yes" or config.compile == "auto" and device.type == "cuda"


def prepare_model(model: nn.Module, config: TrainingConfig, accelerator: Accelerator) -> nn.Module:
    if config.sync_batch_norm and accelerator.num_processes > 1:
        from selfie_lite.training.sync_batch_norm import convert_sync_batch_norm

        model = convert_sync_batch_norm(model, accelerator.device)
    memory_format = torch.channels_last if config.channels_last else torch.contiguous_format
    return model.to(accelerator.device, memory_format=memory_format)


class Run:
    """The folder of a run, and what is written there, by the first process only."""

    def __init__(self, config: TrainingConfig, accelerator: Accelerator, on_log=None):
        self.config, self.accelerator, self.on_log = config, accelerator, on_log
        self.folder, self.checkpoints = config.folder, config.folder / "checkpoint"
        self.lines: list[dict] = []
        self.best: dict[str, Tensor] = {}  # the weights of the best evaluation so far
        self.writer = None

    def resume(self, model: nn.Module, optimizer) -> int:
        """Make the folder, or load the checkpoint; gives the number of steps already done."""
        config = self.config
        if not config.resume:
            self.refuse_used_folder()
            self.accelerator.wait_for_everyone()
            return 0
        path = find_checkpoint(self.checkpoints, config.resume)
        weights, state, saved = load_checkpoint(path)
        self.refuse_other_config(path, saved, state)
        mine = model.state_dict()
        differ = [name for name, tensor in weights.items() if name in mine and tensor.shape != mine[name].shape]
        if differ:
            shapes = (tuple(weights[differ[0]].shape), tuple(mine[differ[0]].shape))
            raise CheckpointError(
                f"{path} is of another network: {differ[0]} has shape {shapes[0]} there and {shapes[1]} here. "
                f"Has {config.data} been replaced by images of another number of classes?"
            )
        model.load_state_dict(weights)
        optimizer.load_state_dict(state["optimizer"])
        self.best = state.get("best", {})
        metrics = self.folder / "metrics.jsonl"
        for text in metrics.read_text().splitlines() if metrics.is_file() else []:
            try:
                line = json.loads(text)
            except ValueError:  # a process killed while it wrote
                continue
            if line["step"] <= state["step"]:
                self.lines.append(line)
        return state["step"]

    def refuse_used_folder(self) -> None:
        if list_checkpoints(self.checkpoints):
            raise SelfieLiteError(
                f"{self.folder} already holds a run. Go on with it: --name {self.config.name} --resume newest. "
                "Or give this one another --name."
            )

    def refuse_other_config(self, path: Path, saved: dict, state: dict) -> None:
        mine = self.config.to_dict()
        free = self.config.FREE
        differ = [k for k in mine if k not in free and k in saved and saved[k] != mine[k]]
        differ += [k for k in saved.keys() ^ mine.keys() if k not in free]
        if state["processes"] != self.accelerator.num_processes:
            raise CheckpointError(f"{path} was written by {state['processes']} processes; resume it with as many.")
        if differ:
            list_of = "; ".join(f"{k} is {saved.get(k)!r} there and {mine.get(k)!r} here" for k in sorted(differ))
            raise CheckpointError(f"{path} belongs to another configuration: {list_of}.")

    def __enter__(self):
        if not self.accelerator.is_main_process:
            return self
        from torch.utils.tensorboard import SummaryWriter

        self.folder.mkdir(parents=True, exist_ok=True)
        self.write("config.json", json.dumps(self.config.to_dict() | {"resume": ""}, indent=1) + "\n")
        self.write("environment.json", json.dumps(environment(), indent=1) + "\n")
        self.write("metrics.jsonl", "".join(json.dumps(line) + "\n" for line in self.lines))
        last = self.lines[-1]["step"] + 1 if self.lines else None
        self.writer = SummaryWriter(self.folder / "tensorboard", purge_step=last)
        return self

    def __exit__(self, *error):
        if self.writer is not None:
            self.writer.close()

    def write(self, name: str, text: str) -> None:
        temporary = self.folder / f".{name}.writing"
        temporary.write_text(text)
        os.replace(temporary, self.folder / name)

    def log(self, step: int, numbers: dict[str, float]) -> None:
        line = {"step": step, **numbers}
        self.lines.append(line)
        if not self.accelerator.is_main_process:
            return
        with open(self.folder / "metrics.jsonl", "a") as file:
            file.write(json.dumps(line) + "\n")
        for name, value in numbers.items():
            self.writer.add_scalar(name, value, step)
        if self.on_log is not None:
            self.on_log(self.lines)

    def save(self, step: int, model: nn.Module, optimizer) -> None:
        self.accelerator.wait_for_everyone()
        if self.accelerator.is_main_process:
            weights = copy_weights(model)
            state = {"step": step, "optimizer": optimizer.state_dict(), "processes": self.accelerator.num_processes}
            state |= {"best": self.best} if self.best else {}
            save_checkpoint(self.checkpoints, step, weights, state, self.config.to_dict(), self.config.keep)
            self.writer.flush()
        self.accelerator.wait_for_everyone()

    def keep_best(self, model: nn.Module, select: str, last: bool) -> None:
        """After an evaluation: note its weights if it was the best; after the last one, go back to the best."""
        if best_line(self.lines, select) is self.lines[-1]:
            self.best = copy_weights(model)
        if last:
            model.load_state_dict(self.best)
            self.best = {}

    def require_finite(self, losses: Tensor, step: int) -> None:
        """`losses` holds those of the last steps: looked at only here, so that the device need not wait in between."""
        if losses.isfinite().all():
            return
        bad = step - step % self.config.log_every + losses.isfinite().logical_not().nonzero()[0].item()
        found = list_checkpoints(self.checkpoints)
        good = f"The last good checkpoint is {found[-1]}." if found else "There is no checkpoint yet."
        raise NonFiniteLossError(
            f"the loss is not a finite number at step {bad + 1}, with learning rate "
            f"{learning_rate_at(bad, self.config):.3g}. {good} Try a lower --learning-rate or a longer --warmup-steps."
        )

    def agree(self, stop: list, look: bool) -> bool:
        """Whether to stop now; with several processes they ask each other, at the steps that are logged."""
        if self.accelerator.num_processes == 1:
            return bool(stop)
        if not look:
            return False
        asked = torch.tensor(float(bool(stop)), device=self.accelerator.device)
        return self.accelerator.reduce(asked, "sum").item() > 0


def copy_weights(model: nn.Module) -> dict[str, Tensor]:
    """The weights as they are now, on the CPU."""
    return {name: tensor.detach().to("cpu", copy=True) for name, tensor in model.state_dict().items()}


def best_line(lines: list[dict], select: str) -> dict:
    """The line of metrics with the highest `select`, the later of equals."""
    return max((line for line in lines if select in line), key=lambda line: (line[select], line["step"]))


@torch.no_grad()
def evaluate_parts(
    model: nn.Module,
    count: int,
    batch_size: int,
    accelerator: Accelerator,
    measure: Callable[[Tensor], tuple[Tensor, Tensor]],
) -> tuple[float, float]:
    """Loss and accuracy over `count` examples in evaluation mode, each process doing its share.

    measure: indices (b,) of some of the examples → loss and accuracy, scalars, each the mean over those examples.
    """
    was_training = model.training
    model.eval()
    totals = torch.zeros(2, device=accelerator.device)
    for part in torch.arange(count).split(batch_size)[accelerator.process_index :: accelerator.num_processes]:
        with accelerator.autocast():
            totals += torch.stack(measure(part)) * len(part)
    model.train(was_training)
    loss, accuracy = (accelerator.reduce(totals, "sum") / count).tolist()
    return loss, accuracy


def write_report(
    config: TrainingConfig, lines: list[dict], command: str, title: str, held_out: str, choices: int
) -> None:
    """README.md and curve.png in the run's folder: what it was, how it went, how to repeat it.

    Args:
        command: of the command line, "pretrain" or "finetune". title: what was trained, one sentence.
        held_out: how the line of metrics calls the accuracy on images never trained on.
        choices: how many answers there are to choose from; guessing is right once in so many.
    """
    from selfie_lite.workbook.figures import draw_training

    losses = [(line["step"], line["loss"]) for line in lines if "loss" in line]
    if not losses:  # stopped before the first line of metrics
        return
    reached = {line["step"]: line[held_out] for line in lines if held_out in line}
    draw_training(*zip(*losses, strict=True), reached, choices).savefig(config.folder / "curve.png", dpi=120)
    ended = f"After {lines[-1]['step']:,} of {config.steps:,} steps of {config.batch_size} images"
    words = held_out.replace("held_out", "held-out").replace("_", " ")
    result = (
        f"{words} {reached[max(reached)]:.3f}, where guessing gives {1 / choices:.3f}" if reached else "no result yet"
    )
    (config.folder / "README.md").write_text(
        f"# {config.name}\n\n{title} {ended}: {result}.\n\n![training loss and {words}](curve.png)\n\n"
        "`config.json` has every setting, `environment.json` versions, device and commit, `metrics.jsonl` the numbers, "
        "`checkpoint/` the weights.\n\n"
        f"Repeat it: `selfie-lite {command} --config runs/{config.name}/config.json --name another`\n",
        encoding="utf-8",
    )


@contextmanager
def stop_signals() -> Iterator[list]:
    """A list that is no longer empty once SIGINT (Ctrl-C, a notebook's stop button) or SIGTERM has come."""
    received: list[int] = []
    try:
        old = {s: signal.signal(s, lambda number, _: received.append(number)) for s in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not the main thread: signals go elsewhere
        old = {}
    try:
        yield received
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


@contextmanager
def out_of_memory_in_words(config: TrainingConfig) -> Iterator[None]:
    try:
        yield
    except torch.OutOfMemoryError:
        raise SelfieLiteError(
            f"the device ran out of memory at batch_size {config.batch_size}. "
            f"Try --batch-size {max(1, config.batch_size // 2)}."
        ) from None
