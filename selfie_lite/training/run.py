"""A run: what it writes into its folder, and where it goes on."""

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from accelerate.optimizer import AcceleratedOptimizer
from torch import Tensor, nn

from selfie_lite.errors import SelfieLiteError
from selfie_lite.files import disk_errors_in_words, locked, read_json, read_json_lines, write_file
from selfie_lite.machine import environment
from selfie_lite.training.checkpoint import (
    CheckpointError,
    find_checkpoint,
    list_checkpoints,
    load_checkpoint,
    newest_in_words,
    save_checkpoint,
)
from selfie_lite.training.config import TrainingConfig
from selfie_lite.training.device import PlainAccelerator
from selfie_lite.training.optimizer import learning_rate_at
from selfie_lite.training.report import append_events, begin_events


class NonFiniteLossError(SelfieLiteError):
    """The loss is no longer a number."""


@dataclass
class Task:
    """What is trained: all in which pretraining and fine-tuning differ."""

    draw: Callable  # (images, labels, generator) → tensors, one row an image: all that is random is drawn here
    forward: Callable  # (model, *those tensors) → {"loss": scalar, …}, which is logged
    evaluate: Callable = lambda model: {}  # numbers to be logged
    report: Callable = lambda lines: None  # called with all lines of metrics at the end
    select: str = ""  # a number of evaluate's: the weights with which it was highest are kept; "" for the last weights


@contextmanager
def own_folder(config: TrainingConfig, accelerator: PlainAccelerator) -> Iterator[None]:
    """Inside the block the run's folder is there, and this run alone in it. Raises SelfieLiteError if something else
    lies there, or another run is inside."""
    with ExitStack() as inside:
        with accelerator.together():
            if config.resume and not config.folder.exists():
                checkpoints = config.folder / "checkpoint"
                raise CheckpointError(
                    f"there is no checkpoint in {checkpoints}: there is no run '{config.name}' yet. Begin it without "
                    "--resume."
                )
            there = config.folder.iterdir() if config.folder.is_dir() else [config.folder] * config.folder.exists()
            if any(path.name[0] != "." for path in there) and not is_run(config.folder):
                raise SelfieLiteError(
                    f"{config.folder} is there already and is no run, so nothing is written there. Choose another "
                    "--name."
                )
            if accelerator.is_main_process:
                in_use = f"{config.folder} is in use: a run of that name is under way. Wait until it has ended, or give"
                with disk_errors_in_words(config.folder, "Nothing was trained."):
                    config.folder.mkdir(parents=True, exist_ok=True)
                    inside.enter_context(locked(config.folder, f"{in_use} this one another --name."))
        yield


class Run:
    """Everything that happens between the steps of training. Files are written by the first process alone."""

    def __init__(
        self, config: TrainingConfig, task: Task, accelerator: PlainAccelerator, model: nn.Module,
        optimizer: AcceleratedOptimizer, data: dict, on_log: Callable[[list[dict]], None] | None,
    ):  # fmt: skip
        """Begin, or go on from the checkpoint that `config` names. data: the fingerprint of the data set."""
        self.config, self.task, self.accelerator, self.on_log = config, task, accelerator, on_log
        self.model, self.optimizer, self.data = model, optimizer, data
        self.folder, self.checkpoints = config.folder, config.folder / "checkpoint"
        self.lines: list[dict] = []  # of metrics
        self.losses: list[Tensor] = []  # since they were last looked at
        self.best: dict[str, Tensor] = {}  # the weights of the best evaluation so far
        self.first = 0  # steps done when this process began
        self.events: Path | None = None
        with accelerator.together():
            if config.resume:
                self._resume()
            elif list_checkpoints(self.checkpoints):
                raise SelfieLiteError(
                    f"{self.folder} already holds a run. Go on with it: --name {config.name} --resume newest. Or give "
                    "this one another --name."
                )
        self.saved = self.first
        evaluated = any(line["step"] == self.first and "learning_rate" not in line for line in self.lines)
        self.owes_evaluation = self.first > 0 and self.is_due(self.first, config.eval_every) and not evaluated
        self.has_ended = self.first == config.steps and not self.owes_evaluation
        if not self.has_ended and accelerator.is_main_process:
            with self._writing():
                (self.folder / "result.json").unlink(missing_ok=True)  # of an end that this run will come to again
                self._write_beginnings()
        self.pace = (time.perf_counter(), self.first)  # when the last line of metrics was written, and its step

    def is_due(self, done: int, every: int) -> bool:
        """Whether what happens every so many steps, and at the end, is due after `done` steps."""
        return done == self.config.steps or every > 0 and done % every == 0

    def log_step(self, done: int, result: dict[str, Tensor]) -> str:
        """A line of metrics about training; gives what the progress bar shows."""
        now, (start, since) = time.perf_counter(), self.pace
        speed = (done - since) * self.config.batch_size / max(now - start, 1e-9)
        numbers = {name: self.accelerator.reduce(x.detach(), "mean").item() for name, x in result.items()}
        numbers |= {"learning_rate": learning_rate_at(done - 1, self.config), "images_per_second": round(speed, 1)}
        if self.accelerator.scaler is not None:
            numbers["loss_scale"] = self.accelerator.scaler.get_scale()
        self._log({"step": done, **numbers})
        self.pace = (now, done)
        return f"loss {numbers['loss']:.3f}, {speed:.0f} images/s"

    def evaluate(self, done: int) -> None:
        """A line of metrics about images never trained on. If that fails, what was trained is saved before."""
        start, select = time.perf_counter(), self.task.select
        try:
            numbers = self.task.evaluate(self.model)
        except Exception as error:
            self.save(done)
            if isinstance(error, SelfieLiteError):
                raise self._with_way_on(error, done) from None
            raise
        self._log({"step": done, **numbers})
        if select and best_line(self.lines, select) is self.lines[-1]:
            self.best = copy_weights(self.model)
        if select and done == self.config.steps:  # the end: go back to the best
            self.model.load_state_dict(self.best)
            self.best = {}
        self.pace = (self.pace[0] + time.perf_counter() - start, self.pace[1])

    def save(self, step: int) -> None:
        """A checkpoint."""
        self.accelerator.wait_for_everyone()
        with self.accelerator.together():
            if self.accelerator.is_main_process:
                state = {"step": step, "processes": self.accelerator.num_processes, "data": self.data}
                state |= {"optimizer": self.optimizer.state_dict(), "lines": self.lines}
                state |= {"best": self.best} if self.best else {}
                state |= {"scaler": self.accelerator.scaler.state_dict()} if self.accelerator.scaler else {}
                config, every = self.config.to_dict(), self.config.save_every
                save_checkpoint(
                    self.checkpoints, step, copy_weights(self.model), state, config, self.config.keep, every
                )
        self.saved = step

    def stop(self, done: int, error: Exception | None) -> None:
        """Leave before the end, saved: for a signal, or for an error, which is raised."""
        if done > self.saved:
            self.require_finite(done)
            self.save(done)
        if isinstance(error, SelfieLiteError) and done > 0:
            error = self._with_way_on(error, done)
        self.accelerator.raise_together(error)
        way_on = f"go on with --name {self.config.name} --resume newest"
        self.accelerator.print(f"stopped at step {done} and saved; {way_on}")

    def end(self) -> None:
        """Write the report; that it cannot be written does not make a trained model worthless."""
        if self.has_ended:
            self.accelerator.print(f"{self.folder} has ended already, after {self.first:,} steps: nothing to do.")
        elif self.owes_evaluation and self.first == self.config.steps:
            self.save(self.first)
        if not self.accelerator.is_main_process or self.has_ended and (self.folder / "README.md").is_file():
            return
        try:
            self.task.report(self.lines)
        except Exception as error:
            print(f"warning: {self.folder} has no report ({error}); everything else is there.", file=sys.stderr)

    def require_finite(self, done: int) -> None:
        """Looks at the losses only here, so that the device need not wait in between."""
        finite = [bool(x) for x in torch.stack(self.losses).isfinite()] if self.losses else []
        from_end = self.accelerator.maximum(0 if all(finite) else len(finite) - finite.index(False))
        self.losses = []
        if from_end:
            rate = learning_rate_at(done - from_end, self.config)
            raise NonFiniteLossError(
                f"the loss is not a finite number at step {done - from_end + 1}, with learning rate {rate:.3g}. "
                f"{newest_in_words(self.checkpoints)} Try a lower --learning-rate or a longer --warmup-steps."
            )

    def _log(self, line: dict) -> None:
        self.lines.append(line)
        if not self.accelerator.is_main_process:
            return
        with self._writing():
            metrics = self.folder / "metrics.jsonl"
            if metrics.is_file() and self.events:
                with open(metrics, "a", encoding="utf-8") as file:
                    file.write(json.dumps(line) + "\n")
                append_events(self.events, [line])
            else:  # the folder was deleted under way
                self._write_beginnings()
        if self.on_log is not None:
            self.on_log(self.lines)

    def _write_beginnings(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        config = self.config.to_dict() | {"resume": ""}
        write_file(self.folder / "config.json", json.dumps(config, indent=1) + "\n")
        write_file(self.folder / "environment.json", json.dumps(environment(self.accelerator.device), indent=1) + "\n")
        write_file(self.folder / "metrics.jsonl", "".join(json.dumps(line) + "\n" for line in self.lines))
        self.events = begin_events(self.folder / "tensorboard", self.lines)

    def _writing(self) -> Any:
        return disk_errors_in_words(self.folder, newest_in_words(self.checkpoints))

    def _with_way_on(self, error: SelfieLiteError, done: int) -> SelfieLiteError:
        """The same error, with what has become of the run."""
        end = "" if str(error).endswith((".", ".)")) else "."
        return type(error)(
            f"{error}{end} The {done:,} steps trained so far are saved; once this is mended, go on with --name "
            f"{self.config.name} --resume newest."
        )

    def _resume(self) -> None:
        lines = read_metrics(self.folder) if (self.folder / "metrics.jsonl").is_file() else []
        if not list_checkpoints(self.checkpoints) and self.config.resume == "newest":
            reached = max((line["step"] for line in lines), default=0)
            if reached < min(self.config.save_every, self.config.steps):  # killed before there was one
                self.accelerator.print(f"{self.folder} has no checkpoint yet: it begins anew.")
                return
        path = find_checkpoint(self.checkpoints, self.config.resume)
        weights, state, saved = load_checkpoint(path)
        refuse_other_run(path, saved, state, self.config, self.accelerator.num_processes, self.data)
        try:
            self.model.load_state_dict(weights)
            self.optimizer.load_state_dict(state["optimizer"])
            if self.accelerator.scaler:
                self.accelerator.scaler.load_state_dict(state["scaler"])
        except (ValueError, KeyError, RuntimeError, TypeError) as error:
            raise CheckpointError(f"{path} is of another network or optimiser: {error}") from None
        self.first, self.best = state["step"], state.get("best", {})
        earlier = [line for line in lines if line["step"] <= self.first]  # checkpoints of old have none in them
        self.lines = state.get("lines", earlier)


def refuse_other_run(
    path: Path, saved: dict[str, Any], state: dict[str, Any], config: TrainingConfig, processes: int, data: dict
) -> None:
    """Raise CheckpointError if a checkpoint belongs to other settings, processes or images (`fingerprint`)."""
    if state["processes"] != processes:
        raise CheckpointError(f"{path} was written by {state['processes']} processes; resume it with as many.")
    mine = config.to_dict()
    saved = {f.name: f.default for f in fields(config)} | saved  # an older run lacks the newer settings
    differ = [name for name in sorted(saved | mine) if name not in config.FREE and saved.get(name) != mine.get(name)]
    if differ:
        list_of = "; ".join(f"{name} is {saved.get(name)!r} there and {mine.get(name)!r} here" for name in differ)
        raise CheckpointError(f"{path} belongs to another configuration: {list_of}.")
    before = state.get("data", data)
    if before != data:
        counts = f"{before['count']:,} images then and {data['count']:,} now"
        what = counts if before["count"] != data["count"] else f"{before['count']:,} images, but not the same"
        raise CheckpointError(
            f"the images of {config.data} have changed since {path} was written: {what}. Others would be held out "
            "now. Put them back as they were, or begin another run."
        )


def is_run(folder: Path) -> bool:
    """Whether `folder` holds a run of this library: its settings are there."""
    needs = {"name": str, "data": str, "steps": int, "seed": int}
    try:
        return bool(read_json(folder / "config.json", "the settings of a run", needs))
    except SelfieLiteError:
        return bool(list_checkpoints(folder / "checkpoint"))


def copy_weights(model: nn.Module) -> dict[str, Tensor]:
    """The weights as they are now, on the CPU."""
    return {name: tensor.detach().to("cpu", copy=True) for name, tensor in model.state_dict().items()}


def read_metrics(folder: Path) -> list[dict]:
    """The lines of metrics of a run, {"step": …, …} each. Raises SelfieLiteError if there are none, or one is bad."""
    return read_json_lines(folder / "metrics.jsonl", "a line of metrics", {"step": int})


def best_line(lines: list[dict], select: str) -> dict:
    """The line of metrics with the highest `select`, the later of equals. Raises SelfieLiteError if no line has it."""
    found = [line for line in lines if isinstance(line.get(select), int | float)]
    if not found:
        raise SelfieLiteError(f"no line of the metrics has {select}.")
    return max(found, key=lambda line: (line[select], line["step"]))
