"""The folder of a run, and what is written there."""

import json
import os
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from selfie_lite.errors import SelfieLiteError
from selfie_lite.files import read_json_lines
from selfie_lite.machine import environment
from selfie_lite.training.checkpoint import (
    CheckpointError,
    find_checkpoint,
    list_checkpoints,
    load_checkpoint,
    save_checkpoint,
)
from selfie_lite.training.config import TrainingConfig
from selfie_lite.training.optimizer import learning_rate_at


class NonFiniteLossError(SelfieLiteError):
    """The loss is no longer a number."""


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


def read_metrics(folder: Path) -> list[dict]:
    """The lines of metrics of a run."""
    return read_json_lines(folder / "metrics.jsonl", "a line of metrics", {"step": int})


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
