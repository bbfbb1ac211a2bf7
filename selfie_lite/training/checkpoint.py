"""Checkpoints: weights, training state and their SHA-256, written so that an interruption never leaves half of one."""

import errno
import json
import os
import shutil
import tempfile
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from selfie_lite.errors import SelfieLiteError
from selfie_lite.files import sha256 as file_sha256


class CheckpointError(SelfieLiteError):
    """A checkpoint that is missing, damaged, or belongs to another configuration."""


def save_checkpoint(folder: Path, step: int, weights: dict[str, Tensor], state: dict, config: dict, keep: int) -> Path:
    """Write folder/STEP/ whole or not at all, then drop all but the newest `keep`.

    Args:
        folder: of the run, `runs/NAME/checkpoint`.
        weights: tensors by name. state: what torch can save and load with weights_only. config: what JSON can hold.

    Raises:
        SelfieLiteError: if the disk is full; every earlier checkpoint is still there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for leftover in folder.glob(".writing-*"):  # of a killed process; a run has one writer
        shutil.rmtree(leftover, ignore_errors=True)
    work = Path(tempfile.mkdtemp(prefix=".writing-", dir=folder))
    try:
        save_file({name: tensor.contiguous() for name, tensor in weights.items()}, work / "model.safetensors")
        torch.save(state, work / "state.pt")
        files = {name: file_sha256(work / name) for name in ("model.safetensors", "state.pt")}
        (work / "checkpoint.json").write_text(json.dumps({"step": step, "config": config, "sha256": files}, indent=1))
        for path in work.iterdir():
            _flush(path)
        place = folder / f"{step:08d}"
        shutil.rmtree(place, ignore_errors=True)  # a damaged one of the same step, or this step written again
        os.replace(work, place)
        _flush(folder)
    except (OSError, RuntimeError) as error:  # torch reports a failed write as a RuntimeError
        full = isinstance(error, OSError) and error.errno == errno.ENOSPC or shutil.disk_usage(folder).free < 2**20
        if not full:
            raise
        raise SelfieLiteError(
            f"the disk of {folder} is full: the checkpoint of step {step} was not written. "
            f"{_newest_in_words(folder)} Make room and go on with --resume newest."
        ) from None
    finally:
        shutil.rmtree(work, ignore_errors=True)
    for old in list_checkpoints(folder)[:-keep]:
        shutil.rmtree(old, ignore_errors=True)
    return place


def list_checkpoints(folder: Path) -> list[Path]:
    """The checkpoints of a run, oldest first."""
    return sorted(path for path in folder.glob("[0-9]*") if path.is_dir())


def find_checkpoint(folder: Path, which: str = "newest") -> Path:
    """The newest checkpoint of a run, or that of step `which`, after checking that it is whole.

    Raises:
        CheckpointError: if there is none, or it is damaged; then the one before it is named, but not taken.
    """
    found = list_checkpoints(folder)
    if not found:
        raise CheckpointError(f"there is no checkpoint in {folder}.")
    if which == "newest":
        chosen = found[-1]
    else:
        matches = [path for path in found if which.isdigit() and int(path.name) == int(which)]
        if not matches:
            steps = ", ".join(str(int(path.name)) for path in found)
            raise CheckpointError(f"no checkpoint of step '{which}' in {folder}; there are: {steps}, or say newest.")
        chosen = matches[0]
    if damage := checkpoint_damage(chosen):
        before = [path for path in found if path < chosen and not checkpoint_damage(path)]
        way_out = f" The one before it is whole: --resume {int(before[-1].name)}" if before else ""
        raise CheckpointError(f"the checkpoint {chosen} is damaged ({damage}).{way_out}")
    return chosen


def checkpoint_damage(path: Path) -> str:
    """What is wrong with a checkpoint's files, by their SHA-256; "" if nothing is."""
    try:
        expected = json.loads((path / "checkpoint.json").read_text())["sha256"]
    except (OSError, ValueError, KeyError):
        return "checkpoint.json cannot be read"
    for name, digest in expected.items():
        if not (path / name).is_file():
            return f"{name} is missing"
        if file_sha256(path / name) != digest:
            return f"{name} is not what was written"
    return ""


def load_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict, dict]:
    """weights, state and config of a checkpoint found by `find_checkpoint`."""
    description = json.loads((path / "checkpoint.json").read_text())
    state = torch.load(path / "state.pt", map_location="cpu", weights_only=True)
    return load_file(path / "model.safetensors"), state, description["config"]


def _newest_in_words(folder: Path) -> str:
    found = list_checkpoints(folder)
    return f"The newest whole one is {found[-1]}." if found else "There is no earlier one."


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
