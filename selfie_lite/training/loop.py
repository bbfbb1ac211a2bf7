"""The loop that pretraining and fine-tuning share, with all that keeps it safe: metrics, checkpoints, exact resume,
stopping on signals and on bad losses.
"""

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from tqdm import tqdm

from selfie_lite.errors import SelfieLiteError
from selfie_lite.training.batches import Batches
from selfie_lite.training.config import TrainingConfig
from selfie_lite.training.device import compiles, prepare_model
from selfie_lite.training.optimizer import learning_rate_at, make_optimizer
from selfie_lite.training.randomness import generator_of, seed_of
from selfie_lite.training.run import Run


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
