"""Going on from a checkpoint: only with what it was written with."""

from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from selfie_lite.training.checkpoint import CheckpointError
from selfie_lite.training.config import TrainingConfig


def refuse_other_run(
    path: Path, saved: dict[str, Any], state: dict[str, Any], config: TrainingConfig, processes: int, data: dict
) -> None:
    """Raise CheckpointError if a checkpoint belongs to other settings, processes or images (`fingerprint`)."""
    mine, free = config.to_dict(), config.FREE
    saved = {f.name: f.default for f in fields(config)} | saved  # an older run lacks the newer settings
    differ = [k for k in saved | mine if k not in free and saved.get(k) != mine.get(k)]
    if state["processes"] != processes:
        raise CheckpointError(f"{path} was written by {state['processes']} processes; resume it with as many.")
    if differ:
        list_of = "; ".join(f"{k} is {saved.get(k)!r} there and {mine.get(k)!r} here" for k in sorted(differ))
        raise CheckpointError(f"{path} belongs to another configuration: {list_of}.")
    before = state.get("data", data)
    if before != data:
        counts = f"{before['count']:,} images then and {data['count']:,} now"
        what = counts if before["count"] != data["count"] else f"{before['count']:,} images, but not the same"
        raise CheckpointError(
            f"the images of {config.data} have changed since {path} was written: {what}. Others would be held out "
            "now. Put them back as they were, or begin another run."
        )


def load_state(
    path: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    weights: dict[str, Tensor],
    state: dict[str, Any],
    data: str,
) -> None:
    """Put what a checkpoint holds into model and optimiser; CheckpointError if it does not fit."""
    mine = model.state_dict()
    for name, tensor in weights.items():
        if name in mine and tensor.shape != mine[name].shape:
            raise CheckpointError(
                f"{path} is of another network: {name} has shape {tuple(tensor.shape)} there and "
                f"{tuple(mine[name].shape)} here. Has {data} been replaced by images of another number of classes?"
            )
    if other := sorted(mine.keys() ^ weights.keys()):
        raise CheckpointError(f"{path} is of another network: {other[0]} is in only one of the two.")
    model.load_state_dict(weights)
    try:
        optimizer.load_state_dict(state["optimizer"])
    except (ValueError, KeyError, RuntimeError, TypeError) as error:
        raise CheckpointError(f"{path} has the state of another optimiser: {error}") from None
