"""Models that have learnt: load one by name or from a run, and write a run's weights small enough to pass on."""

import json
import shutil
from pathlib import Path

from safetensors.torch import load_file, save_file

from selfie_lite.checkpoint import CheckpointError, checkpoint_damage, find_checkpoint, list_checkpoints
from selfie_lite.data import BUNDLED
from selfie_lite.data_import import file_sha256
from selfie_lite.errors import SelfieLiteError, require_choice
from selfie_lite.pretrain import PretrainConfig, make_model
from selfie_lite.selfie import Selfie
from selfie_lite.training import RUNS

BUNDLED_MODELS = ("additive", "mask_token")


def load_pretrained(name_or_folder: str | Path = "additive") -> Selfie:
    """A pretrained model in evaluation mode, float32, on the CPU.

    Args:
        name_or_folder: "additive" or "mask_token", bundled: a ResNet-18 trained on CIFAR-10 with that form of query;
            the name of a run, or its folder, for its newest checkpoint; or the folder of one checkpoint.

    Raises:
        CheckpointError: if there is none, or its files are not what was written (SHA-256).
    """
    folder = pretrained_folder(name_or_folder)
    if damage := checkpoint_damage(folder):
        raise CheckpointError(f"the checkpoint {folder} is damaged ({damage}).")
    config = PretrainConfig.from_dict(json.loads((folder / "checkpoint.json").read_text())["config"])
    model = make_model(config)
    model.load_state_dict(load_file(folder / "model.safetensors"))
    return model.eval()


def pretrained_folder(name_or_folder: str | Path = "additive") -> Path:
    """Where the weights of `load_pretrained`'s argument lie."""
    if name_or_folder in BUNDLED_MODELS:
        return BUNDLED / "pretrained" / name_or_folder
    for folder in (Path(name_or_folder).expanduser(), RUNS / name_or_folder):
        if (folder / "checkpoint.json").is_file():
            return folder
        if (folder / "checkpoint").is_dir():
            return find_checkpoint(folder / "checkpoint")
    if Path(name_or_folder).is_absolute() or len(Path(name_or_folder).parts) > 1:
        raise CheckpointError(f"there is no run and no checkpoint in {name_or_folder}.")
    require_choice("model", str(name_or_folder), known_models())
    raise AssertionError("not reached: a known model has a folder")


def load_history(name_or_folder: str | Path = "additive") -> dict[int, Selfie]:
    """The model of `load_pretrained` at every step of which there is a checkpoint, earliest first; for a run also as
    it was before training, step 0.

    Raises:
        CheckpointError: as `load_pretrained`.
    """
    newest = pretrained_folder(name_or_folder)
    if newest.parent.name != "checkpoint" or newest == Path(name_or_folder).expanduser():
        return {json.loads((newest / "checkpoint.json").read_text())["step"]: load_pretrained(newest)}
    config = PretrainConfig.from_dict(json.loads((newest / "checkpoint.json").read_text())["config"])
    trained = {int(folder.name): load_pretrained(folder) for folder in list_checkpoints(newest.parent)}
    return {0: make_model(config).eval()} | trained


def known_models() -> list[str]:
    """What `load_pretrained` takes by name: the bundled models, and the runs that have a checkpoint."""
    return [*BUNDLED_MODELS, *sorted({path.parent.parent.name for path in RUNS.glob("*/checkpoint/[0-9]*")})]


def export_pretrained(run: str | Path, folder: Path) -> Path:
    """Write the weights of a run's newest checkpoint as float16, half the size, with their SHA-256, the config, the
    metrics and the environment of the run; `load_pretrained(folder)` reads them.

    Raises:
        CheckpointError: if the run has no whole checkpoint. SelfieLiteError: if `folder` is not empty.
    """
    source = pretrained_folder(run)
    if folder.is_dir() and any(folder.iterdir()):
        raise SelfieLiteError(f"{folder} is not empty: name a new folder.")
    folder.mkdir(parents=True, exist_ok=True)
    description = json.loads((source / "checkpoint.json").read_text())
    weights = load_file(source / "model.safetensors")
    small = {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in weights.items()}
    save_file(small, folder / "model.safetensors")
    sha256 = {"model.safetensors": file_sha256(folder / "model.safetensors")}
    text = json.dumps({"step": description["step"], "config": description["config"], "sha256": sha256}, indent=1)
    (folder / "checkpoint.json").write_text(text + "\n")
    for name in ("metrics.jsonl", "environment.json"):
        if (file := source.parent.parent / name).is_file():
            shutil.copy(file, folder)
    return folder
