"""Checkpoints: weights, training state and their SHA-256, written so that an interruption never leaves half of one."""

import io
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from selfie_lite.errors import SelfieLiteError
from selfie_lite.files import disk_errors_in_words, read_json, sha256, whole_folder

DESCRIPTION = {"step": int, "config": dict, "sha256": dict}


class CheckpointError(SelfieLiteError):
    """A checkpoint that is missing, damaged, or belongs to another configuration."""


def save_checkpoint(
    folder: Path,
    step: int,
    weights: Mapping[str, Tensor],
    state: dict[str, Any],
    config: dict[str, Any],
    keep: int,
    every: int = 1,
) -> Path:
    """Write folder/STEP/ whole or not at all, then drop what is older than the newest `keep`, and what is of a later
    step: the run has gone back and goes another way.

    Args:
        folder: of the run, `runs/NAME/checkpoint`.
        weights: tensors by name. state: what torch can save and load with weights_only. config: what JSON can hold.
        every: steps between two checkpoints. One of a step in between, where the run was stopped, goes with the next,
            so that those that are kept are the same wherever a run was stopped.

    Raises:
        SelfieLiteError: if the disk is full or cannot be written; every earlier checkpoint is still there.
    """
    place = folder / f"{step:08d}"
    lost = f"The checkpoint of step {step} was not written. {newest_in_words(folder)} Make room and go on with --resume"
    with disk_errors_in_words(folder, f"{lost} newest."), whole_folder(place, "checkpoint.json") as work:
        save_file({name: tensor.contiguous() for name, tensor in weights.items()}, work / "model.safetensors")
        buffer = io.BytesIO()  # written by Python: torch's own writer does not say that a disk is full
        torch.save(state, buffer)
        (work / "state.pt").write_bytes(buffer.getbuffer())
        files = {name: sha256(work / name) for name in ("model.safetensors", "state.pt")}
        (work / "checkpoint.json").write_text(json.dumps({"step": step, "config": config, "sha256": files}, indent=1))
    *older, newest = [path for path in list_checkpoints(folder) if int(path.name) <= step]
    regular = [path for path in older if int(path.name) % every == 0]
    kept = {newest, *regular[len(regular) - keep + 1 :]}
    for old in list_checkpoints(folder):
        if old not in kept:
            shutil.rmtree(old, ignore_errors=True)
    return place


def list_checkpoints(folder: Path) -> list[Path]:
    """The checkpoints of a run, oldest first."""
    found = [path for path in folder.glob("[0-9]*") if path.name.isdecimal() and path.is_dir()]
    return sorted(found, key=lambda path: int(path.name))


def newest_in_words(folder: Path) -> str:
    """Which checkpoint of a run is the newest, a sentence."""
    found = list_checkpoints(folder)
    return f"The newest whole checkpoint is {found[-1]}." if found else "There is no earlier checkpoint."


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
        matches = [path for path in found if which.isdecimal() and int(path.name) == int(which)]
        if not matches:
            steps = ", ".join(str(int(path.name)) for path in found)
            raise CheckpointError(f"no checkpoint of step '{which}' in {folder}; there are: {steps}, or say newest.")
        chosen = matches[0]
    if damage := checkpoint_damage(chosen):
        before = [path for path in found if int(path.name) < int(chosen.name) and not checkpoint_damage(path)]
        way_out = f" The one before it is whole: --resume {int(before[-1].name)}" if before else ""
        raise CheckpointError(f"the checkpoint {chosen} is damaged ({damage}).{way_out}")
    return chosen


def checkpoint_damage(path: Path) -> str:
    """What is wrong with a checkpoint's files, by their SHA-256; "" if nothing is."""
    try:
        expected = read_json(path / "checkpoint.json", "a checkpoint's description", DESCRIPTION)["sha256"]
    except SelfieLiteError:
        return "checkpoint.json cannot be read"
    if "model.safetensors" not in expected:
        return "checkpoint.json does not name model.safetensors"
    for name, digest in expected.items():
        if name != Path(name).name:
            return f"checkpoint.json names '{name}', outside its folder"
        try:
            if not (path / name).is_file():
                return f"{name} is missing"
            if sha256(path / name) != digest:
                return f"{name} is not what was written"
        except OSError as error:
            return f"{name} cannot be read: {error.strerror}"
    return ""


def load_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, Any], dict[str, Any]]:
    """weights, state and config of a checkpoint found by `find_checkpoint`. No code that it may hold is run.

    Raises:
        CheckpointError: if it is of another form.
    """
    description = read_json(path / "checkpoint.json", "a checkpoint's description", DESCRIPTION)
    try:
        state = torch.load(path / "state.pt", map_location="cpu", weights_only=True)
        weights = load_file(path / "model.safetensors")
    except (OSError, SafetensorError, RuntimeError, EOFError, ValueError, KeyError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(f"the checkpoint {path} cannot be read: {reason}") from None
    except Exception:  # an UnpicklingError's message advises to switch the safety off
        raise CheckpointError(f"the checkpoint {path} cannot be read: state.pt holds more than plain values.") from None
    needs = {"step": int, "processes": int, "optimizer": dict}
    wrong = not isinstance(state, dict) or any(not isinstance(state.get(name), kind) for name, kind in needs.items())
    if wrong:
        raise CheckpointError(f"the checkpoint {path} cannot be read: state.pt is not of a training run.")
    return weights, state, description["config"]
