"""The settings of a training run: typed, every field checked, unknown ones refused."""

import math
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path

from selfie_lite.errors import SelfieLiteError, require_choice, suggestion

RUNS = Path("runs")


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
            object.__setattr__(self, f.name, _typed(f.name, getattr(self, f.name), f.default))
        for name, least in {"steps": 1, "batch_size": 1, "warmup_steps": 0, "log_every": 1, "eval_every": 0,
                            "save_every": 1, "keep": 1, "workers": 0}.items():  # fmt: skip
            require_range(name, getattr(self, name), least)
        for name in ("learning_rate", "clip_norm"):
            if not 0 < getattr(self, name) < math.inf:
                raise SelfieLiteError(f"{name} must be above 0 and finite, but is {getattr(self, name)}.")
        if not 0 <= self.weight_decay < math.inf:
            raise SelfieLiteError(f"weight_decay must be 0 or more and finite, but is {self.weight_decay}.")
        require_range("workers", self.workers, 0, 1024)
        require_choice("optimizer", self.optimizer, ["sgd", "adamw"])
        require_choice("precision", self.precision, ["auto", "bf16", "fp32"])
        require_choice("compile", self.compile, ["auto", "yes", "no"])
        if self.resume and not self.resume.isdecimal():
            require_choice("checkpoint to resume, which is a step or", self.resume, ["newest"])
        if not self.data:
            raise SelfieLiteError("data is empty: name a data set, or a folder of images.")
        if self.name != Path(self.name).name or self.name.startswith(".") or not self.name.isprintable():
            raise SelfieLiteError(f"name must be a plain folder name, but is {self.name!r}.")
        if not 0 < len(self.name.encode("utf-8", "replace")) <= 200:
            raise SelfieLiteError(
                f"name must have 1 to 200 bytes, but has {len(self.name.encode('utf-8', 'replace'))}."
            )

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


def require_range(name: str, value: float, least: float, most: float = math.inf) -> None:
    """Raise SelfieLiteError unless least ≤ value ≤ most; a value that is no number lies nowhere."""
    if not least <= value <= most:
        limits = f"{least} or more" if most == math.inf else f"between {least} and {most}"
        raise SelfieLiteError(f"{name} must be {limits}, but is {value}.")


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
