"""The loop that pretraining and fine-tuning share: a step, a line of metrics, an evaluation, a checkpoint; and what
ends it early."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from tqdm import tqdm

from selfie_lite.data.datasets import ImageDataset, ImageFiles
from selfie_lite.errors import SelfieLiteError
from selfie_lite.training.batches import Batches, fingerprint, read_batches
from selfie_lite.training.config import TrainingConfig
from selfie_lite.training.device import PlainAccelerator, compiles, prepare_model
from selfie_lite.training.optimizer import learning_rate_at, make_optimizer
from selfie_lite.training.randomness import generator_of, seed_of
from selfie_lite.training.run import Run


def train(
    config: TrainingConfig, accelerator: PlainAccelerator, model: nn.Module, batches: Batches, forward: Callable,
    evaluate: Callable, report: Callable, on_log: Callable | None = None, select: str = "",
) -> list[dict]:  # fmt: skip
    """Train `model` for `config.steps` steps, or on from a checkpoint; returns the lines of metrics.jsonl.

    Args:
        forward: (model, images, labels, generator) → {"loss": scalar, …}, all of which are logged.
        evaluate: model → numbers to be logged. report: called with all lines at the end. on_log: at each new line.
        select: a number of `evaluate`'s: the weights of the evaluation at which it was highest (the later of equals)
            are those that the model, and the last checkpoint, have in the end. Default: the last weights.

    Raises:
        NonFiniteLossError: with the step, the learning rate and the last good checkpoint.
        CheckpointError: if the checkpoint to resume is missing, damaged, or of another configuration or data set.
        SelfieLiteError: if the folder is not ours to write to, an image cannot be read, device or disk are full.
    """
    compiled = compiles(config, accelerator.device)
    model = prepare_model(model, config, accelerator)
    optimizer = make_optimizer(model, config)
    wrapped, optimizer = accelerator.prepare(model, optimizer)
    losses = torch.zeros(config.log_every, device=accelerator.device)  # of the steps since the last line of metrics
    with stop_signals() as stop, Run(config, accelerator, fingerprint(batches.dataset), on_log) as run:
        run.begin(model, optimizer)
        if compiled:
            wrapped.compile()
        if run.owes_evaluation:
            run.evaluate(run.first, evaluate, model, optimizer, select)
        with out_of_memory_in_words(config), progress_bar(run) as bar, Ahead(batches, run, stop) as ahead:
            for step in range(run.first, config.steps):
                result = train_step(config, accelerator, wrapped, optimizer, forward, *ahead.batch, step)
                losses[step % config.log_every] = result["loss"].detach()
                done = step + 1
                ahead.fetch(done)
                last, logging = done == config.steps, done % config.log_every == 0 or done == config.steps
                evaluating = last or config.eval_every and done % config.eval_every == 0
                saving = last or done % config.save_every == 0 or ahead.stopping
                if logging or evaluating or saving:
                    run.require_finite(losses, step)
                if logging:
                    bar.set_postfix_str(run.log_step(done, result), refresh=False)
                bar.update()
                if evaluating:
                    run.evaluate(done, evaluate, model, optimizer, select)
                if saving:
                    run.save(done, model, optimizer)
                if ahead.stopping and not last:
                    break
        run.end(report, model, optimizer)
    return run.lines


class Ahead:
    """Fetches each batch while the step before it is still under way, and knows whether to stop: for a signal, or for
    an image that cannot be read. All processes stop after the same step."""

    def __init__(self, batches: Batches, run: Run, stop: list):
        self.source, self.run, self.stop = batches.start(run.first), run, stop
        self.batch: tuple[Tensor, Tensor] | None = None
        self.stopping, self.error = False, None
        self.done = run.first

    def __enter__(self) -> "Ahead":
        if self.run.first < self.run.config.steps:
            self.fetch(self.run.first)
            self.run.accelerator.raise_together(self.error)
        return self

    def fetch(self, done: int) -> None:
        """The batch that follows after `done` steps; none if this is the end."""
        self.done = done
        try:
            self.batch = next(self.source, None)
        except Exception as error:
            self.error = error
        wanted = bool(self.stop) and done > self.run.first or self.error is not None
        self.stopping = bool(self.run.accelerator.maximum(int(wanted)))

    def __exit__(self, kind: type | None, *_: object) -> None:
        self.source.close()  # ends the workers
        if kind is not None or not self.stopping or self.done == self.run.config.steps:
            return
        error = self.error
        if isinstance(error, SelfieLiteError):
            error = self.run.with_way_on(error, self.done)
        self.run.accelerator.raise_together(error)
        way_on = f"go on with --name {self.run.config.name} --resume newest"
        self.run.accelerator.print(f"stopped at step {self.done} and saved; {way_on}")


def progress_bar(run: Run) -> tqdm:
    """On a terminal or in a log, of the first process only."""
    hidden = None if run.accelerator.is_main_process else True
    return tqdm(total=run.config.steps, initial=run.first, unit="step", disable=hidden)


def train_step(
    config: TrainingConfig, accelerator: PlainAccelerator, model: nn.Module, optimizer: torch.optim.Optimizer,
    forward: Callable, images: Tensor, labels: Tensor, step: int,
) -> dict[str, Tensor]:  # fmt: skip
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


@torch.no_grad()
def evaluate_parts(
    model: nn.Module,
    dataset: ImageDataset | ImageFiles,
    indices: Tensor,
    batch_size: int,
    accelerator: PlainAccelerator,
    workers: int,
    measure: Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]],
) -> tuple[float, float]:
    """Loss and accuracy over the images at `indices` in evaluation mode, each process doing its share; files are read
    in `workers` processes.

    measure: images, labels, and their places in `indices` → loss and accuracy, scalars, each the mean over them.
    """
    was_training = model.training
    model.eval()
    totals = torch.zeros(2, device=accelerator.device)
    error = None
    try:
        parts = torch.arange(len(indices)).split(batch_size)[accelerator.process_index :: accelerator.num_processes]
        batches = read_batches(dataset, [(indices[part],) for part in parts], workers, accelerator.device)
        for part, (images, labels) in zip(parts, batches, strict=True):
            with accelerator.autocast():
                totals += torch.stack(measure(images, labels, part)) * len(part)
    except SelfieLiteError as met:  # an image that cannot be read, say, by one process of several
        error = met
    model.train(was_training)
    accelerator.raise_together(error)
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
            f"the device ran out of memory at batch_size {config.batch_size}. "
            f"Try --batch-size {max(1, config.batch_size // 2)}."
        ) from None
