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
from selfie_lite.training.checkpoint import CheckpointError, checkpoint_damage, find_checkpoint, list_checkpoints
from selfie_lite.training.config import RUNS
from selfie_lite.training.pretrain import PretrainConfig, make_model

BUNDLED_MODELS = ("additive", "mask_token")
FIRST_BLOCK = "layer1.0.conv1.weight"  # a ResNet's, wherever it stands in a file
OF_P = ("conv1.", "bn1.", "layer1.", "layer2.", "layer3.")
Network = TypeVar("Network", bound=nn.Module)
_UNREADABLE = "{} holds no weights that can be read: it is cut short, or something else."
DESCRIPTION = {"step": int, "config": dict, "sha256": dict}


def load_pretrained(name_or_folder: str | Path = "additive") -> Selfie:
    """A pretrained model in evaluation mode, float32, on the CPU.

    Args:
        name_or_folder: "additive" or "mask_token", bundled: a ResNet-18 trained on CIFAR-10 with that form of query;
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
    """Weights and description (step, config) of a bundled model, a run's newest checkpoint, or one checkpoint.

    Raises:
        CheckpointError: if there is none, or its files are not what was written (SHA-256).
    """
    folder = pretrained_folder(name_or_folder)
    description = read_description(folder)
    if damage := checkpoint_damage(folder):
        raise CheckpointError(f"the checkpoint {folder} is damaged ({damage}).")
    return read_weights(folder / "model.safetensors"), description


def read_description(folder: Path) -> dict:
    """Step, config and SHA-256 of a checkpoint."""
    try:
        description = read_json(folder / "checkpoint.json", "the description of a checkpoint", DESCRIPTION)
    except SelfieLiteError as error:
        raise CheckpointError(f"the checkpoint {folder} is damaged ({error})") from None
    if "model.safetensors" not in description["sha256"]:
        raise CheckpointError(f"the checkpoint {folder} is damaged (checkpoint.json has no SHA-256 of the weights).")
    return description


def read_weights(file: Path) -> dict[str, Tensor]:
    """All tensors of a .safetensors file, or of one that torch.save wrote, by name; those of a dictionary inside a
    dictionary have both names, with a dot between. Nothing in the file is ever executed.

    Raises:
        CheckpointError: if it is no such file, or cut short.
    """
    try:
        with open(file, "rb") as opened, warnings.catch_warnings(action="ignore"):
            start = opened.read(512)
            opened.seek(0)
            if what := _no_weights(start):
                raise CheckpointError(f"{file} is {what}, not weights: bring the file itself.")
            found = load_file(file) if start[8:9] == b"{" else torch.load(opened, "cpu", weights_only=True)
    except CheckpointError:
        raise
    except pickle.UnpicklingError:  # its words advise to run what is in the file
        if start[:1] not in (b"P", b"\x80"):  # neither an archive nor a pickle
            raise CheckpointError(_UNREADABLE.format(file)) from None
        raise CheckpointError(
            f"{file} holds Python objects, a whole model perhaps, which could run anything when read, or it is cut "
            "short. Where it was made, save the tensors alone: torch.save(model.state_dict(), FILE)."
        ) from None
    except OSError as error:
        raise CheckpointError(f"{file} cannot be read ({words_of(error)}).") from None
    except Exception:  # bytes of others: torch and safetensors fail in many ways
        raise CheckpointError(_UNREADABLE.format(file)) from None
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
    before = [name.removesuffix(FIRST_BLOCK) for name in weights if name.endswith(FIRST_BLOCK)]
    before = [prefix for prefix in before if f"{prefix}conv1.weight" in weights and (not prefix or prefix[-1] == ".")]
    if "patch_network." in before and "encoder_network." in before:  # an untied P: that of the hidden patches
        before = ["patch_network."]
    if not before:
        raise CheckpointError(
            f"{source} holds no conv1.weight beside a {FIRST_BLOCK}: it is no state dict of torchvision's or timm's "
            "ResNet."
        )
    found = {
        prefix: {name.removeprefix(prefix): tensor for name, tensor in weights.items() if name.startswith(prefix)}
        for prefix in sorted(before, key=len)
    }
    first, *others = ({n: t for n, t in part.items() if n.startswith(OF_P)} for part in found.values())
    if any(o.keys() != first.keys() or not all(torch.equal(o[name], first[name]) for name in first) for o in others):
        names = " and ".join(f"'{prefix}'" for prefix in found)
        raise CheckpointError(f"{source} holds several networks, before whose names stands {names}: keep one of them.")
    return next(iter(found.values()))


def fill(model: Network, weights: dict[str, Tensor], source: str | Path) -> Network:
    """`model` with these weights, in evaluation mode.

    Raises:
        CheckpointError: if they are not those of such a model, or hold NaN.
    """
    expected = model.state_dict()
    counters = {name for name in expected if name.endswith("num_batches_tracked")}  # old versions have none
    kind = "such a model"
    if isinstance(model, PatchNetwork):
        kind = "the first three blocks of a resnet50 or resnet18"
    for names, words in ((expected.keys() - counters - weights.keys(), "lacks"), (weights.keys() - expected, "has")):
        if names:
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            raise CheckpointError(f"{source} does not hold {kind}: it {words} {min(names)}{more}.")
    for name, tensor in weights.items():
        if tensor.shape != expected[name].shape:
            shapes = f"{tuple(tensor.shape)}, not {tuple(expected[name].shape)}"
            raise CheckpointError(f"{source} does not hold {kind}: {name} has the shape {shapes}.")
        plain = tensor.layout == torch.strided and tensor.device.type == "cpu" and not tensor.is_quantized
        if name not in counters and not (plain and tensor.is_floating_point()):
            raise CheckpointError(f"{source}: {name} is stored as {tensor.dtype}, not as plain floating-point numbers.")
        if name not in counters and not tensor.float().isfinite().all():
            raise CheckpointError(
                f"{source}: {name} holds values that are no finite numbers (NaN): the weights are bad."
            )
    model.load_state_dict(
        {name: tensor.float() for name, tensor in weights.items()}
        | {name: expected[name] for name in counters - weights.keys()}
    )
    return model.eval()


def pretrain_config(source: str | Path, description: dict) -> PretrainConfig:
    """The settings in the description of a checkpoint.

    Raises:
        CheckpointError: if they are a classifier's, or none that this version knows.
    """
    if "labels" in description["config"]:
        raise CheckpointError(f"{source} is a fine-tuned classifier: it has P, but no A and no positions.")
    try:
        return PretrainConfig.from_dict(description["config"])
    except SelfieLiteError as error:
        raise CheckpointError(f"{source} has settings that cannot be used: {error}") from None


def as_path(source: str | Path) -> Path:
    """The argument of a function that takes a name, a file or a folder.

    Raises:
        CheckpointError: for anything else.
    """
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
    if path.is_absolute() or len(path.parts) != 1 or path.exists():
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
    if newest.parent.name != "checkpoint" or newest == as_path(name_or_folder):
        return {read_description(newest)["step"]: load_pretrained(newest)}
    config = pretrain_config(name_or_folder, read_description(newest))
    trained = {int(folder.name): load_pretrained(folder) for folder in list_checkpoints(newest.parent)}
    return {0: make_model(config).eval()} | trained


def known_models() -> list[str]:
    """What `load_pretrained` takes by name: the bundled models, and the pretraining runs that have a checkpoint."""
    found = {path.parent.parent for path in RUNS.glob("*/checkpoint/[0-9]*/") if path.is_dir()}
    return [*BUNDLED_MODELS, *sorted(run.name for run in found if _pretrained_there(run))]


def _pretrained_there(run: Path) -> bool:
    try:
        return bool(read_json(run / "config.json", "the settings of a pretraining run", {"num_masked": int}))
    except SelfieLiteError:
        return False


def _no_weights(start: bytes) -> str:
    """What a file is whose first bytes are no weights; "" if they may be."""
    if not start:
        return "empty"
    if start.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer"
    if start.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"<"):
        return "a web page"
    if min(start) >= 9:  # no byte that text does not have
        return f"text ({start[:40].decode(errors='replace').strip()!r})"
    return ""


def _tensors(found: object, before: str = "", depth: int = 0) -> Iterator[tuple[str, Tensor]]:
    if not isinstance(found, dict) or depth > 5:
        return
    for name, value in found.items():
        if isinstance(value, Tensor):
            yield f"{before}{name}", value.detach()
        else:
            yield from _tensors(value, f"{before}{name}.", depth + 1)
