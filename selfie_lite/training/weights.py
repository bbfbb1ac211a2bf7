"""Models that have learnt: load one by name, from a run or from weights made elsewhere. What others wrote is checked
for its form, and nothing in it is ever executed."""

import pickle
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from selfie_lite.data.catalog import BUNDLED
from selfie_lite.errors import SelfieLiteError, require_choice
from selfie_lite.files import read_json, sha256, words_of
from selfie_lite.patch_network import PatchNetwork, norm_of
from selfie_lite.selfie import Selfie
from selfie_lite.training.checkpoint import (
    CheckpointError,
    checkpoint_damage,
    find_checkpoint,
    list_checkpoints,
    read_description,
)
from selfie_lite.training.config import RUNS
from selfie_lite.training.pretrain import PretrainConfig, make_model

BUNDLED_MODELS = ("additive", "mask_token", "location_224")
FIRST_BLOCK = "layer1.0.conv1.weight"  # a ResNet's, wherever it stands in a file
OF_P = ("conv1.", "bn1.", "layer1.", "layer2.", "layer3.")
COUNTER = "num_batches_tracked"  # old versions have none
Network = TypeVar("Network", bound=nn.Module)


def load_pretrained(name_or_folder: str | Path = "additive") -> Selfie:
    """A pretrained model in evaluation mode, float32, on the CPU.

    Args:
        name_or_folder: "additive" or "mask_token", bundled: a ResNet-18 trained on CIFAR-10 with that form of query;
            "location_224", one for 224×224 and 49 locations, trained for a short time on part of Imagenette;
            the name of a run, or its folder, for its newest checkpoint; or the folder of one checkpoint.

    Raises:
        CheckpointError: if there is none, or its files are not what was written (SHA-256).
    """
    weights, description = read_checkpoint(name_or_folder)
    return fill(make_model(pretrain_config(name_or_folder, description)), weights, name_or_folder)


def load_patch_network(source: str | Path) -> PatchNetwork:
    """P alone, in evaluation mode, float32, on the CPU.

    Args:
        source: what `load_pretrained` takes, a fine-tuning run too; or weights made elsewhere: a file with the state
            dict of torchvision's or timm's resnet50 or resnet18 (.safetensors, .pth), whatever stands before the names
            in it; or a folder that `PatchNetwork.save_pretrained` wrote.

    Raises:
        CheckpointError: if there is none, it is damaged, or it holds something else.
    """
    weights, _ = read_source(source)
    own = {name: tensor for name, tensor in weights.items() if name.startswith(OF_P)}
    if own["conv1.weight"].ndim != 4:
        raise CheckpointError(f"{source}: its conv1.weight has the shape {tuple(own['conv1.weight'].shape)}.")
    arch = "resnet50" if "layer1.0.conv3.weight" in own else "resnet18"
    stem = "small" if own["conv1.weight"].shape[-1] == 3 else "imagenet"
    return fill(PatchNetwork(arch, stem, norm_of(own)), own, source)


def read_source(source: str | Path) -> tuple[dict[str, Tensor], dict]:
    """The tensors of the ResNet in `load_patch_network`'s argument, by torchvision's names, and what is known of them:
    step and config of a checkpoint, or the SHA-256 of a file made elsewhere."""
    path = as_path(source)
    if (path / "model.safetensors").is_file() and not (path / "checkpoint.json").is_file():
        path = path / "model.safetensors"
    if path.is_file():
        return resnet_of(read_weights(path), source), {"file": path.name, "sha256": sha256(path)}
    weights, description = read_checkpoint(source)
    return resnet_of(weights, source), description


def read_checkpoint(name_or_folder: str | Path) -> tuple[dict[str, Tensor], dict]:
    """Weights and description (step, config) of a bundled model, a run's newest checkpoint, or one checkpoint."""
    folder = pretrained_folder(name_or_folder)
    description = read_description(folder)
    if damage := checkpoint_damage(folder):
        raise CheckpointError(f"the checkpoint {folder} is damaged ({damage}).")
    return read_weights(folder / "model.safetensors"), description


def pretrain_config(source: str | Path, description: dict) -> PretrainConfig:
    """The settings in the description of a checkpoint. Raises CheckpointError if they are a classifier's, or none."""
    if "labels" in description["config"]:
        raise CheckpointError(f"{source} is a fine-tuned classifier: it has P, but no A and no positions.")
    try:
        return PretrainConfig.from_dict(description["config"])
    except SelfieLiteError as error:
        raise CheckpointError(f"{source} has settings that cannot be used: {error}") from None


def as_path(source: str | Path) -> Path:
    """A name, a file or a folder. Raises CheckpointError for anything else."""
    if not isinstance(source, str | Path) or not str(source):
        raise CheckpointError(f"say a name, a file or a folder, not {type(source).__name__} {str(source)[:40]!r}.")
    try:
        path = Path(source).expanduser()
        path.is_dir()
    except (OSError, RuntimeError, ValueError) as error:  # too long a name, ~nobody
        words = words_of(error) if isinstance(error, OSError) else error
        raise CheckpointError(f"'{str(source)[:80]}' cannot be a name or a folder ({words}).") from None
    return path


def pretrained_folder(name_or_folder: str | Path = "additive") -> Path:
    """Where the weights of `load_pretrained`'s argument lie."""
    path = as_path(name_or_folder)
    if str(name_or_folder) in BUNDLED_MODELS:
        return BUNDLED / "pretrained" / name_or_folder
    for folder in (path, RUNS / path):
        if (folder / "checkpoint.json").is_file():
            return folder
        if (folder / "checkpoint").is_dir():
            return find_checkpoint(folder / "checkpoint")
    if not (path.is_absolute() or len(path.parts) != 1 or path.exists()):
        require_choice("model", str(name_or_folder), known_models())
    raise CheckpointError(f"there is no run and no checkpoint in {name_or_folder}.")


def load_history(name_or_folder: str | Path = "additive") -> dict[int, Selfie]:
    """The model of `load_pretrained` at every step of which there is a checkpoint, earliest first; for a run also as
    it was before training, step 0."""
    newest = pretrained_folder(name_or_folder)
    description = read_description(newest)
    if newest.parent.name != "checkpoint" or newest == as_path(name_or_folder):
        return {description["step"]: load_pretrained(newest)}
    trained = {int(folder.name): load_pretrained(folder) for folder in list_checkpoints(newest.parent)}
    return {0: make_model(pretrain_config(name_or_folder, description)).eval()} | trained


def known_models() -> list[str]:
    """What `load_pretrained` takes by name: the bundled models, and the pretraining runs that have a checkpoint."""

    def pretrained_there(run: Path) -> bool:
        try:
            return bool(read_json(run / "config.json", "the settings of a pretraining run", {"num_masked": int}))
        except SelfieLiteError:
            return False

    found = {path.parent.parent for path in RUNS.glob("*/checkpoint/[0-9]*/") if path.is_dir()}
    return [*BUNDLED_MODELS, *sorted(run.name for run in found if pretrained_there(run))]


def read_weights(file: Path) -> dict[str, Tensor]:
    """All tensors of a .safetensors file, or of one that torch.save wrote, by name; those of a dictionary inside a
    dictionary have both names, with a dot between.

    Raises:
        CheckpointError: if it is no such file, or cut short.
    """
    unreadable = CheckpointError(f"{file} holds no weights that can be read: it is cut short, or something else.")
    try:
        with open(file, "rb") as opened, warnings.catch_warnings(action="ignore"):
            start = opened.read(512)
            opened.seek(0)
            if not start or min(start) >= 9:  # no byte that text does not have
                what = f"text ({start[:40].decode(errors='replace').strip()!r})" if start else "empty"
                what += ", a web page" * (b"<" in start) + ", a Git LFS pointer" * (b"git-lfs" in start)
                raise CheckpointError(f"{file} is {what}, not weights: bring the file itself.")
            found = load_file(file) if start[8:9] == b"{" else torch.load(opened, "cpu", weights_only=True)
    except CheckpointError:
        raise
    except pickle.UnpicklingError:  # its words advise to run what is in the file
        if start[:1] not in (b"P", b"\x80"):  # neither an archive nor a pickle
            raise unreadable from None
        raise CheckpointError(
            f"{file} holds Python objects, a whole model perhaps, which could run anything when read, or it is cut "
            "short. Where it was made, save the tensors alone: torch.save(model.state_dict(), FILE)."
        ) from None
    except OSError as error:
        raise CheckpointError(f"{file} cannot be read ({words_of(error)}).") from None
    except Exception:  # bytes of others: torch and safetensors fail in many ways
        raise unreadable from None
    tensors = dict(_tensors(found))
    if not tensors:
        raise CheckpointError(f"{file} holds no state dict (tensors by name): save model.state_dict().")
    return tensors


def resnet_of(weights: dict[str, Tensor], source: str | Path) -> dict[str, Tensor]:
    """The part of `weights` that is a ResNet, by torchvision's names: without what may stand before them, "module.",
    "backbone." or "state_dict.patch_network." say.

    Raises:
        CheckpointError: if there is none, or there are two that differ.
    """
    found = [name.removesuffix(FIRST_BLOCK) for name in weights if name.endswith(FIRST_BLOCK)]
    found = [prefix for prefix in found if f"{prefix}conv1.weight" in weights and prefix[-1:] in ("", ".")]
    if {"patch_network.", "encoder_network."} <= set(found):  # an untied P: that of the hidden patches
        found = ["patch_network."]
    if not found:
        raise CheckpointError(
            f"{source} holds no conv1.weight beside a {FIRST_BLOCK}: it is no state dict of torchvision's or timm's "
            "ResNet."
        )
    parts = [
        {name.removeprefix(prefix): tensor for name, tensor in weights.items() if name.startswith(prefix)}
        for prefix in sorted(found, key=len)
    ]
    first, *others = ({n: t for n, t in part.items() if n.startswith(OF_P)} for part in parts)
    if any(o.keys() != first.keys() or not all(torch.equal(o[name], first[name]) for name in first) for o in others):
        names = " and ".join(f"'{prefix}'" for prefix in found)
        raise CheckpointError(f"{source} holds several networks, before whose names stands {names}: keep one of them.")
    return parts[0]


def fill(model: Network, weights: dict[str, Tensor], source: str | Path) -> Network:
    """`model` with these weights, in evaluation mode.

    Raises:
        CheckpointError: if they are not those of such a model, or hold NaN.
    """
    kind = "the first three blocks of a resnet50 or resnet18" if isinstance(model, PatchNetwork) else "such a model"
    for name, tensor in weights.items():
        if name.endswith(COUNTER):
            continue
        if tensor.layout != torch.strided or tensor.is_quantized or not tensor.is_floating_point():
            raise CheckpointError(f"{source}: {name} is stored as {tensor.dtype}, not as plain floating-point numbers.")
        if not tensor.float().isfinite().all():
            raise CheckpointError(f"{source}: {name} holds values that are no finite numbers (NaN).")
    try:
        missing, more = model.load_state_dict({n: t.float() for n, t in weights.items()}, strict=False)
    except RuntimeError as error:
        what = str(error).splitlines()[-1].strip()
        raise CheckpointError(f"{source} does not hold {kind}: {what}") from None
    for names, words in (([name for name in missing if not name.endswith(COUNTER)], "lacks"), (more, "has")):
        if names:
            others = f" and {len(names) - 1} more" if len(names) > 1 else ""
            raise CheckpointError(f"{source} does not hold {kind}: it {words} {names[0]}{others}.")
    return model.eval()


def _tensors(found: object, before: str = "", depth: int = 0) -> Iterator[tuple[str, Tensor]]:
    if not isinstance(found, dict) or depth > 5:
        return
    for name, value in found.items():
        if isinstance(value, Tensor):
            yield f"{before}{name}", value.detach()
        else:
            yield from _tensors(value, f"{before}{name}.", depth + 1)
