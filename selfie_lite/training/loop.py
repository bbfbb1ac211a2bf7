"""The loop that pretraining and fine-tuning share: a step, a line of metrics, an evaluation, a checkpoint; and what
ends it early."""

import signal
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, nullcontext

import torch
from accelerate.optimizer import AcceleratedOptimizer
from torch import Tensor, nn
from tqdm import tqdm

from selfie_lite.data.datasets import ImageDataset, ImageFiles
from selfie_lite.errors import SelfieLiteError
from selfie_lite.training.batches import Batches, fingerprint, read_batches
from selfie_lite.training.config import TrainingConfig
from selfie_lite.training.device import PlainAccelerator, compiles, prepare_model
from selfie_lite.training.optimizer import learning_rate_at, make_optimizer
from selfie_lite.training.randomness import generator_of, seed_of
from selfie_lite.training.run import Run, Task, own_folder


def train(
    config: TrainingConfig, task: Task, accelerator: PlainAccelerator, model: nn.Module, batches: Batches,
    on_log: Callable[[list[dict]], None] | None = None,
) -> list[dict]:  # fmt: skip
    """Train `model` for `config.steps` steps, or on from a checkpoint; returns the lines of metrics.jsonl, with all of
    which `on_log` is called at each new one.

    Raises:
        NonFiniteLossError: with the step, the learning rate and the last good checkpoint.
        CheckpointError: if the checkpoint to resume is missing, damaged, or of another configuration or data set.
        SelfieLiteError: if the folder is not ours to write to, an image cannot be read, device or disk are full.
    """
    compiled = compiles(config, accelerator.device)
    model = prepare_model(model, config, accelerator)
    wrapped, optimizer = accelerator.prepare(model, make_optimizer(model, config))
    with stop_signals() as stop, own_folder(config, accelerator), out_of_memory_in_words(config):
        run = Run(config, task, accelerator, model, optimizer, fingerprint(batches.dataset), on_log)
        if compiled:
            wrapped.compile()
        if run.owes_evaluation:
            run.evaluate(run.first)
        with closing(batches.start(run.first)) as source, progress_bar(run) as bar:
            for step in range(run.first, config.steps):
                batch = next_batch(source, run, stop, step)
                if batch is None:
                    break
                result = train_step(config, task, accelerator, wrapped, optimizer, *batch, step)
                run.losses.append(result["loss"])
                done = step + 1
                logging, evaluating, saving = (
                    run.is_due(done, every) for every in (config.log_every, config.eval_every, config.save_every)
                )
                if logging or evaluating or saving:
                    run.require_finite(done)
                if logging:
                    bar.set_postfix_str(run.log_step(done, result), refresh=False)
                if evaluating:
                    run.evaluate(done)
                if saving:
                    run.save(done)
                bar.update()
        run.end()
    return run.lines


def train_step(
    config: TrainingConfig, task: Task, accelerator: PlainAccelerator, model: nn.Module,
    optimizer: AcceleratedOptimizer, images: Tensor, labels: Tensor, step: int,
) -> dict[str, Tensor]:  # fmt: skip
    """Step `step` (from 0) on one batch: forward, backward, clip, update. Gives what `task.forward` gave, detached, the
    mean over the parts of the batch (`config.accumulate`)."""
    torch.manual_seed(seed_of(config.seed, "dropout", step, accelerator.process_index))
    generator = generator_of(config.seed, "masks and crops", step, accelerator.process_index)
    for group in optimizer.param_groups:
        group["lr"] = learning_rate_at(step, config)
    model.train()
    optimizer.zero_grad(set_to_none=True)
    drawn = task.draw(images, labels, generator)
    means: dict[str, Tensor] = {}
    for number, part in enumerate(zip(*(x.chunk(config.accumulate) for x in drawn), strict=True), 1):
        with nullcontext() if number == config.accumulate else accelerator.no_sync(model):
            with accelerator.autocast():
                result = task.forward(model, *part)
            accelerator.backward(result["loss"] / config.accumulate)
        means = {name: means.get(name, 0) + x.detach() / config.accumulate for name, x in result.items()}
    if accelerator.scaler is not None:
        accelerator.scaler.unscale_(optimizer.optimizer)
    accelerator.clip_grad_norm_(model.parameters(), config.clip_norm)
    optimizer.step()  # with a scaler, none if a gradient is too large for float16
    return means


def next_batch(
    source: Iterator[tuple[Tensor, Tensor]], run: Run, stop: list, step: int
) -> tuple[Tensor, Tensor] | None:
    """The batch of a step, read while the device still computes the step before. None if the run ends here, saved, as a
    signal has come to one of the processes; an image that cannot be read ends it likewise, and raises."""
    batch, error = None, None
    try:
        batch = next(source)
    except Exception as met:
        error = met
    if not run.accelerator.maximum(int(bool(stop) or error is not None)):
        return batch
    run.stop(step, error)
    return None


def progress_bar(run: Run) -> tqdm:
    """On a terminal or in a log, of the first process only."""
    hidden = None if run.accelerator.is_main_process else True
    return tqdm(total=run.config.steps, initial=run.first, unit="step", disable=hidden)


@torch.no_grad()
def evaluate_parts(
    model: nn.Module, dataset: ImageDataset | ImageFiles, indices: Tensor, batch_size: int,
    accelerator: PlainAccelerator, workers: int,
    measure: Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]],
) -> tuple[float, float]:  # fmt: skip
    """Loss and accuracy over the images at `indices` in evaluation mode, each process doing its share; files are read
    in `workers` processes.

    measure: images, labels, and their places in `indices` → loss and accuracy, scalars, each the mean over them.
    """
    was_training = model.training
    model.eval()
    totals = torch.zeros(2, device=accelerator.device)
    with accelerator.together():  # an image that cannot be read, say, by one process of several
        parts = torch.arange(len(indices)).split(batch_size)[accelerator.process_index :: accelerator.num_processes]
        batches = read_batches(dataset, [(indices[part],) for part in parts], workers, accelerator.device)
        for part, (images, labels) in zip(parts, batches, strict=True):
            with accelerator.autocast():
                totals += torch.stack(measure(images, labels, part)) * len(part)
    model.train(was_training)
    loss, accuracy = (accelerator.reduce(totals, "sum") / len(indices)).tolist()
    return loss, accuracy


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
            f"the device ran out of memory at batch_size {config.batch_size}. Compute it in more parts, --accumulate "
            f"{2 * config.accumulate}, or try --batch-size {max(1, config.batch_size // 2)}."
        ) from None
