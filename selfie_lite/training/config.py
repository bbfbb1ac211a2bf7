"""The settings of a training run: typed, every field checked, unknown ones refused."""

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, ClassVar, Self

from selfie_lite.errors import SelfieLiteError, require_choice, suggestion

RUNS = Path("runs")


def option(default: Any, help: str, bounds: str = "", choices: Iterable[str] = (), flag: str = "") -> Any:
    """A field of a configuration, with the help that the command line shows, and its flag if it is not the name.

    bounds: as in `require_within`. choices: the values that text may have; none for any.
    """
    metadata = {"help": help, "bounds": bounds, "choices": list(choices), "flag": flag}
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class TrainingConfig:
    """The settings of any training run."""

    name: str = option("run", "the run's name: everything is written to runs/NAME")
    data: str = option("sample", "data set by name, or a folder of images")
    steps: int = option(100, "optimiser steps", "[1, inf)")
    batch_size: int = option(64, "images in a step, over all processes", "[1, inf)")
    optimizer: str = option("sgd", "sgd (Nesterov momentum 0.9) or adamw", choices=["sgd", "adamw"])
    learning_rate: float = option(0.1, "at its peak; warm-up is linear, decay a half cosine to 0", "(0, inf)")
    warmup_steps: int = option(20, "steps of warm-up", "[0, inf)")
    weight_decay: float = option(1e-4, "not on biases, normalisation and embeddings", "[0, inf)")
    clip_norm: float = option(1.0, "largest norm of the gradient", "(0, inf)")
    seed: int = option(0, "of all random numbers")
    log_every: int = option(10, "steps between two lines of metrics", "[1, inf)")
    eval_every: int = option(100, "steps between two evaluations; 0 for one at the end", "[0, inf)")
    save_every: int = option(100, "steps between two checkpoints; there is one at the end in any case", "[1, inf)")
    keep: int = option(3, "checkpoints to keep", "[1, inf)")
    workers: int = option(4, "processes that read images, if they do not fit in memory", "[0, 1024]")
    accumulate: int = option(
        1, "parts that a batch is computed in, one after the other, which takes less memory: the result is that of the "
        "whole batch, but that batch normalisation sees each part alone and dropout is drawn anew", "[1, inf)"
    )  # fmt: skip
    device: str = option("auto", "cpu, cuda, cuda:1, mps or another; auto: the GPU if there is one")
    precision: str = option(
        "auto", "bf16, fp16 (with loss scaling; CUDA only), fp32, or auto: bf16 where the device has it natively, "
        "fp16 on other CUDA GPUs, else fp32", choices=["auto", "bf16", "fp16", "fp32"]
    )  # fmt: skip
    compile: str = option("auto", "yes, no, or auto: torch.compile on a GPU", choices=["auto", "yes", "no"])
    channels_last: bool = option(True, "memory format of the convolutions")
    sync_batch_norm: bool = option(False, "batch statistics over all processes instead of each its own")
    resume: str = option("", "newest, or the step of a checkpoint to go on from")

    FREE: ClassVar = {
        "log_every",
        "keep",
        "workers",
        "resume",
        "save_every",
        "device",
    }  # may differ when a run is resumed

    def __post_init__(self) -> None:
        for f in fields(self):
            value: Any = _typed(f.name, getattr(self, f.name), f.default)
            object.__setattr__(self, f.name, value)
            if f.metadata["bounds"]:
                require_within(f.name, value, f.metadata["bounds"])
            if f.metadata["choices"]:
                require_choice(f.name, value, f.metadata["choices"])
        if self.resume and not self.resume.isdecimal():
            require_choice("checkpoint to resume, which is a step or", self.resume, ["newest"])
        if not self.data:
            raise SelfieLiteError("data is empty: name a data set, or a folder of images.")
        if self.name != Path(self.name).name or self.name.startswith(".") or not self.name.isprintable():
            raise SelfieLiteError(f"name must be a plain folder name, but is {self.name!r}.")
        require_within("the length of name, in bytes,", len(self.name.encode("utf-8", "replace")), "[1, 200]")

    @property
    def folder(self) -> Path:
        return RUNS / self.name

    def to_dict(self) -> dict:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict) -> Self:
        """Raises SelfieLiteError for an unknown key, offering the nearest."""
        known = [f.name for f in fields(cls)]
        for key in values:
            if key not in known:
                raise SelfieLiteError(f"no setting '{key}'.{suggestion(key, known)}")
        return cls(**values)

    def updated(self, **changes: Any) -> Self:
        return replace(self, **changes)


def require_within(name: str, value: Any, bounds: str) -> None:
    """Raise SelfieLiteError unless `value` is a number in the interval `bounds`, written "[1, inf)" or "(0, 0.5]"."""
    low, high = (float(number) for number in bounds[1:-1].split(","))
    if isinstance(value, int | float) and not isinstance(value, bool):
        if low < value < high or value == low and bounds[0] == "[" or value == high and bounds[-1] == "]":
            return
    limits = f"{low:g} or more" if bounds[0] == "[" else f"above {low:g}"
    if high < math.inf:
        limits += f" and {'up to' if bounds[-1] == ']' else 'below'} {high:g}"
    elif isinstance(value, float):
        limits += " and finite"
    raise SelfieLiteError(f"{name} must be {limits}, but is {value!r}.")


def _typed(name: str, value: object, default: object) -> object:
    """`value` with the type of `default`; numbers may be written in any way that is exact: 1 for 1.0, 1e3 for 1000, and
    1e-3 as the text that YAML makes of it."""
    wanted = type(default)
    try:
        if wanted is float and isinstance(value, int | str) and not isinstance(value, bool):
            return float(value)
    except (ValueError, OverflowError):
        pass
    if wanted is int and isinstance(value, float) and value.is_integer():
        return int(value)
    if type(value) is not wanted:
        raise SelfieLiteError(f"{name} takes a {wanted.__name__}, for instance {default!r}, but is {value!r}.")
    return value
