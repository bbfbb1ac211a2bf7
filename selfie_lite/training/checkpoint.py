"""Checkpoints: weights, training state and their SHA-256, written so that an interruption never leaves half of one."""

import io
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from selfie_lite.errors import SelfieLiteError
from selfie_lite.files import disk_errors_in_words, read_json, sha256, whole_folder


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
    by_step = {str(int(path.name)): path for path in found} | {"newest": found[-1]}
    if which not in by_step:
        raise CheckpointError(f"no checkpoint of step '{which}' in {folder}; there are: {', '.join(by_step)}.")
    chosen = by_step[which]
    if damage := checkpoint_damage(chosen):
        before = [path for path in found if int(path.name) < int(chosen.name) and not checkpoint_damage(path)]
        way_out = f" The one before it is whole: --resume {int(before[-1].name)}" if before else ""
        raise CheckpointError(f"the checkpoint {chosen} is damaged ({damage}).{way_out}")
    return chosen


def read_description(path: Path) -> dict:
    """Step, config and SHA-256 of a checkpoint. Raises CheckpointError if they are of another form."""
    needs = {"step": int, "config": dict, "sha256": dict}
    try:
        description = read_json(path / "checkpoint.json", "the description of a checkpoint", needs)
    except SelfieLiteError as error:
        raise CheckpointError(f"the checkpoint {path} is damaged ({error})") from None
    if "model.safetensors" not in description["sha256"]:
        raise CheckpointError(f"the checkpoint {path} is damaged (checkpoint.json has no SHA-256 of the weights).")
    return description


def checkpoint_damage(path: Path) -> str:
    """What is wrong with a checkpoint's files, by their SHA-256; "" if nothing is."""
    try:
        expected = read_description(path)["sha256"]
    except CheckpointError:
        return "checkpoint.json cannot be read"
    for name, digest in expected.items():
        if name != Path(name).name:
            return f"checkpoint.json names '{name}', outside its folder"
        try:
            if sha256(path / name) != digest:
                return f"{name} is not what was written"
        except FileNotFoundError:
            return f"{name} is missing"
        except OSError as error:
            return f"{name} cannot be read: {error.strerror}"
    return ""


def load_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, Any], dict[str, Any]]:
    """weights, state and config of a checkpoint found by `find_checkpoint`. No code that it may hold is run.

    Raises:
        CheckpointError: if it is of another form.
    """
    config = read_description(path)["config"]
    try:
        weights = load_file(path / "model.safetensors")
        state = torch.load(path / "state.pt", map_location="cpu", weights_only=True)
    except Exception as error:  # torch and safetensors fail in many ways; some advise to switch the safety off
        what = type(error).__name__
        said = f"({what}): it is cut short, or state.pt holds more than plain values."
        raise CheckpointError(f"the checkpoint {path} cannot be read {said}") from None
    needs = {"step": int, "processes": int, "optimizer": dict}
    if not isinstance(state, dict) or any(not isinstance(state.get(name), kind) for name, kind in needs.items()):
        raise CheckpointError(f"the checkpoint {path} cannot be read: state.pt is not of a training run.")
    return weights, state, config
