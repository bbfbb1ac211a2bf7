"""The folder of a run, and what is written there: settings, metrics, checkpoints."""

import json
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import torch
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
from selfie_lite.training.events import EventFile
from selfie_lite.training.optimizer import learning_rate_at
from selfie_lite.training.resume import load_state, refuse_other_run


class NonFiniteLossError(SelfieLiteError):
    """The loss is no longer a number."""


class Run:
    """The folder of a run, and what is written there, by the first process only. Only one run at a time is inside."""

    def __init__(self, config: TrainingConfig, accelerator: PlainAccelerator, data: dict, on_log: Callable | None):
        self.config, self.accelerator, self.data, self.on_log = config, accelerator, data, on_log
        self.folder, self.checkpoints = config.folder, config.folder / "checkpoint"
        self.lines: list[dict] = []
        self.later: list[dict] = []  # of an earlier start that came further; they go when a new checkpoint is there
        self.best: dict[str, Tensor] = {}  # the weights of the best evaluation so far
        self.first, self.owes_evaluation = 0, False
        self.events: EventFile | None = None
        self.closing = ExitStack()
        self.pace = (0.0, 0)  # when the last line of metrics was written, and its step

    def __enter__(self) -> "Run":
        error = None
        try:
            if self.config.resume or self.folder.exists():
                self._refuse_other_folder()
            if self.accelerator.is_main_process:
                with self._writing():
                    self.folder.mkdir(parents=True, exist_ok=True)
                    self.closing.enter_context(locked(self.folder, f"{self.folder} is in use: a run of that name is "
                        "under way. Wait until it has ended, or give this one another --name."))  # fmt: skip
        except SelfieLiteError as met:
            error = met
        self.accelerator.raise_together(error)
        return self

    def __exit__(self, *error: object) -> None:
        self.closing.close()

    def begin(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Load the checkpoint to resume, if one is asked for, and write what every run has."""
        error = None
        try:
            if self.config.resume:
                self._resume(model, optimizer)
            elif list_checkpoints(self.checkpoints):
                raise SelfieLiteError(
                    f"{self.folder} already holds a run. Go on with it: --name {self.config.name} --resume newest. "
                    "Or give this one another --name."
                )
        except SelfieLiteError as met:
            error = met
        self.accelerator.raise_together(error)
        if not self.has_ended and self.accelerator.is_main_process:
            with self._writing():
                (self.folder / "result.json").unlink(missing_ok=True)  # of an end that this run will come to again
                self._write_beginnings()
        self.pace = (time.perf_counter(), self.first)

    @property
    def has_ended(self) -> bool:
        """Whether nothing was left to do when the run was resumed."""
        return self.first == self.config.steps and not self.owes_evaluation

    def log_step(self, done: int, result: dict[str, Tensor]) -> str:
        """A line of metrics about training; gives what the progress bar shows."""
        now, (start, since) = time.perf_counter(), self.pace
        speed = (done - since) * self.config.batch_size / max(now - start, 1e-9)
        numbers = {name: self.accelerator.reduce(x.detach(), "mean").item() for name, x in result.items()}
        numbers |= {"learning_rate": learning_rate_at(done - 1, self.config), "images_per_second": round(speed, 1)}
        self._log(done, numbers)
        self.pace = (now, done)
        return f"loss {numbers['loss']:.3f}, {speed:.0f} images/s"

    def evaluate(
        self, done: int, evaluate: Callable, model: nn.Module, optimizer: torch.optim.Optimizer, select: str
    ) -> None:
        """A line of metrics about images never trained on. If that fails, what was trained is saved before."""
        start = time.perf_counter()
        try:
            numbers = evaluate(model)
        except Exception as error:
            self.save(done, model, optimizer, evaluated=False)
            if isinstance(error, SelfieLiteError):
                raise self.with_way_on(error, done) from None
            raise
        self._log(done, numbers)
        if select and best_line(self.lines, select) is self.lines[-1]:
            self.best = copy_weights(model)
        if select and done == self.config.steps:  # the end: go back to the best
            model.load_state_dict(self.best)
            self.best = {}
        self.pace = (self.pace[0] + time.perf_counter() - start, self.pace[1])

    def with_way_on(self, error: SelfieLiteError, done: int) -> SelfieLiteError:
        """The same error, with what has become of the run."""
        end = "" if str(error).endswith((".", ".)")) else "."
        return type(error)(
            f"{error}{end} The {done:,} steps trained so far are saved; once this is mended, go on with --name "
            f"{self.config.name} --resume newest."
        )

    def save(self, step: int, model: nn.Module, optimizer: torch.optim.Optimizer, evaluated: bool = True) -> None:
        """A checkpoint. evaluated: False if an evaluation is due at this step, and was not possible."""
        error = None
        self.accelerator.wait_for_everyone()
        try:
            if self.accelerator.is_main_process:
                state = {"step": step, "optimizer": optimizer.state_dict(), "evaluated": evaluated, "data": self.data}
                state |= {"processes": self.accelerator.num_processes} | ({"best": self.best} if self.best else {})
                config, every = self.config.to_dict(), self.config.save_every
                save_checkpoint(self.checkpoints, step, copy_weights(model), state, config, self.config.keep, every)
                if self.later:
                    self.later = []
                    self._write_beginnings()
        except SelfieLiteError as met:
            error = met
        self.accelerator.raise_together(error)

    def end(self, report: Callable[[list[dict]], None], model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Write the report; that it cannot be written does not make a trained model worthless."""
        if self.has_ended:
            self.accelerator.print(f"{self.folder} has ended already, after {self.first:,} steps: nothing to do.")
        elif self.first == self.config.steps:  # only its last evaluation was
            self.save(self.first, model, optimizer)
        if not self.accelerator.is_main_process or self.has_ended and (self.folder / "README.md").is_file():
            return
        try:
            report(self.lines)
        except Exception as error:
            print(f"warning: {self.folder} has no report ({error}); everything else is there.", file=sys.stderr)

    def require_finite(self, losses: Tensor, step: int) -> None:
        """`losses` holds those of the last steps: looked at only here, so that the device need not wait in between."""
        count = len(losses)
        bad = losses.isfinite().logical_not().nonzero()
        from_end = self.accelerator.maximum(count - int(bad[0]) if len(bad) else 0)
        if not from_end:
            return
        bad_step = step - step % count + count - from_end
        raise NonFiniteLossError(
            f"the loss is not a finite number at step {bad_step + 1}, with learning rate "
            f"{learning_rate_at(bad_step, self.config):.3g}. {newest_in_words(self.checkpoints)} Try a lower "
            "--learning-rate or a longer --warmup-steps."
        )

    def _log(self, step: int, numbers: dict[str, float]) -> None:
        line = {"step": step, **numbers}
        self.lines.append(line)
        if not self.accelerator.is_main_process:
            return
        with self._writing():
            metrics = self.folder / "metrics.jsonl"
            if self.later or not metrics.is_file():  # the folder was deleted under way: made again
                self.later = [other for other in self.later if (other["step"], *other) != (step, *line)]
                self._write_beginnings()
            else:
                with open(metrics, "a", encoding="utf-8") as file:
                    file.write(json.dumps(line) + "\n")
                self.events.add(line)
        if self.on_log is not None:
            self.on_log(self.lines)

    def _write_beginnings(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        config = self.config.to_dict() | {"resume": ""}
        write_file(self.folder / "config.json", json.dumps(config, indent=1) + "\n")
        write_file(self.folder / "environment.json", json.dumps(environment(), indent=1) + "\n")
        lines = self.lines + self.later
        write_file(self.folder / "metrics.jsonl", "".join(json.dumps(line) + "\n" for line in lines))
        self.events = EventFile(self.folder / "tensorboard", lines)

    def _writing(self):
        return disk_errors_in_words(self.folder, newest_in_words(self.checkpoints))

    def _refuse_other_folder(self) -> None:
        """Only a run, or nothing, may lie where this one is going to."""
        if not self.folder.exists():
            raise CheckpointError(
                f"there is no checkpoint in {self.checkpoints}: there is no run '{self.config.name}' yet. Begin it "
                "without --resume."
            )
        entries = [path for path in self.folder.iterdir() if path.name[0] != "."] if self.folder.is_dir() else [None]
        if entries and not is_run(self.folder):
            raise SelfieLiteError(
                f"{self.folder} is there already and is no run, so nothing is written there. Choose another --name."
            )

    def _resume(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        metrics = self.folder / "metrics.jsonl"
        lines = read_metrics(self.folder) if metrics.is_file() else []
        if not list_checkpoints(self.checkpoints) and self.config.resume == "newest":
            reached = max((line["step"] for line in lines), default=0)
            if reached < min(self.config.save_every, self.config.steps):  # killed before there was one
                self.accelerator.print(f"{self.folder} has no checkpoint yet: it begins anew.")
                return
        path = find_checkpoint(self.checkpoints, self.config.resume)
        weights, state, saved = load_checkpoint(path)
        refuse_other_run(path, saved, state, self.config, self.accelerator.num_processes, self.data)
        load_state(path, model, optimizer, weights, state, self.config.data)
        self.best = state.get("best", {})
        self.first, self.owes_evaluation = state["step"], not state.get("evaluated", True)
        trained = lambda line: "loss" in line or not self.owes_evaluation  # noqa: E731
        self.lines = [x for x in lines if x["step"] < self.first or x["step"] == self.first and trained(x)]
        self.later = [line for line in lines if line["step"] > self.first]


def is_run(folder: Path) -> bool:
    """Whether `folder` holds a run of this library: its settings are there."""
    try:
        read_json(
            folder / "config.json", "the settings of a run", {"name": str, "data": str, "steps": int, "seed": int}
        )
    except SelfieLiteError:
        return bool(list_checkpoints(folder / "checkpoint"))
    return True


def copy_weights(model: nn.Module) -> dict[str, Tensor]:
    """The weights as they are now, on the CPU."""
    return {name: tensor.detach().to("cpu", copy=True) for name, tensor in model.state_dict().items()}


def read_metrics(folder: Path) -> list[dict]:
    """The lines of metrics of a run, {"step": …, …} each.

    Raises:
        SelfieLiteError: if there are none, or a line is damaged.
    """
    return read_json_lines(folder / "metrics.jsonl", "a line of metrics", {"step": int})


def best_line(lines: list[dict], select: str) -> dict:
    """The line of metrics with the highest `select`, the later of equals.

    Raises:
        SelfieLiteError: if no line has it.
    """
    found = [line for line in lines if isinstance(line.get(select), int | float)]
    if not found:
        raise SelfieLiteError(f"no line of the metrics has {select}.")
    return max(found, key=lambda line: (line[select], line["step"]))
