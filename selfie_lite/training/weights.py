"""Models that have learnt: load one by name, from a run or from weights made elsewhere, and pass a run's weights on."""

import json
import pickle
import shutil
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from selfie_lite.data.catalog import BUNDLED
from selfie_lite.errors import SelfieLiteError, require_choice
from selfie_lite.files import sha256 as file_sha256
from selfie_lite.patch_network import PatchNetwork
from selfie_lite.selfie import Selfie
from selfie_lite.training.checkpoint import CheckpointError, checkpoint_damage, find_checkpoint, list_checkpoints
from selfie_lite.training.config import RUNS
from selfie_lite.training.pretrain import PretrainConfig, make_model

BUNDLED_MODELS = ("additive", "mask_token")


def load_pretrained(name_or_folder: str | Path = "additive") -> Selfie:
    """A pretrained model in evaluation mode, float32, on the CPU.

    Args:
        name_or_folder: "additive" or "mask_token", bundled: a ResNet-18 trained on CIFAR-10 with that form of query;
            the name of a run, or its folder, for its newest checkpoint; or the folder of one checkpoint.

    Raises:
        CheckpointError: if there is none, or its files are not what was written (SHA-256).
    """
    weights, description = read_checkpoint(name_or_folder)
    model = make_model(_pretrain_config(name_or_folder, description))
    model.load_state_dict(weights)
    return model.eval()


def load_patch_network(source: str | Path) -> PatchNetwork:
    """P alone, in evaluation mode, float32, on the CPU.

    Args:
        source: what `load_pretrained` takes, a fine-tuning run too; or weights made elsewhere: a file with the state
            dict of torchvision's or timm's resnet50 or resnet18 (.safetensors, .pth), or a folder that
            `PatchNetwork.save_pretrained` wrote.

    Raises:
        CheckpointError: if there is none, it is damaged, or it holds something else.
    """
    weights, _ = read_source(source)
    weights = {name.removeprefix("patch_network."): tensor for name, tensor in weights.items()}
    own = {k: v for k, v in weights.items() if k.startswith(("conv1.", "bn1.", "layer1.", "layer2.", "layer3."))}
    if "conv1.weight" not in own:
        raise CheckpointError(f"{source} holds no conv1.weight: it is no state dict of torchvision's or timm's ResNet.")
    arch = "resnet50" if "layer1.0.conv3.weight" in own else "resnet18"
    patch_network = PatchNetwork(arch, "small" if own["conv1.weight"].shape[-1] == 3 else "imagenet")
    try:
        patch_network.load_state_dict(own)
    except RuntimeError:
        raise CheckpointError(
            f"{source} does not hold the first three blocks of a resnet50 or resnet18: its weights have other shapes."
        ) from None
    return patch_network.eval()


def read_source(source: str | Path) -> tuple[dict[str, Tensor], dict]:
    """Weights as `load_patch_network` finds them, and what is known of them: step and config of a checkpoint, or the
    SHA-256 of a file made elsewhere."""
    path = Path(source).expanduser()
    if (path / "model.safetensors").is_file() and not (path / "checkpoint.json").is_file():
        path = path / "model.safetensors"
    if path.is_file():
        return read_weights(path), {"file": path.name, "sha256": file_sha256(path)}
    return read_checkpoint(source)


def read_checkpoint(name_or_folder: str | Path) -> tuple[dict[str, Tensor], dict]:
    """Weights and description (step, config) of a bundled model, a run's newest checkpoint, or one checkpoint.

    Raises:
        CheckpointError: if there is none, or its files are not what was written (SHA-256).
    """
    folder = pretrained_folder(name_or_folder)
    if damage := checkpoint_damage(folder):
        raise CheckpointError(f"the checkpoint {folder} is damaged ({damage}).")
    return load_file(folder / "model.safetensors"), json.loads((folder / "checkpoint.json").read_text())


def read_weights(file: Path) -> dict[str, Tensor]:
    """A state dict from a .safetensors file, or from one that torch.save wrote; nothing in it is ever executed.

    Raises:
        CheckpointError: if it is no such file, or cut short.
    """
    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        weights = torch.load(file, map_location="cpu", weights_only=True)
    except (SafetensorError, RuntimeError, EOFError, OSError, ValueError, pickle.UnpicklingError):
        start = file.read_bytes()[:40].lstrip()
        if start.startswith((b"<", b"version https://git-lfs")):
            what = "a web page" if start.startswith(b"<") else "a Git LFS pointer"
            raise CheckpointError(f"{file} is {what}, not weights: download the file itself.") from None
        raise CheckpointError(
            f"{file} holds no weights that can be read: it is cut short, or something else."
        ) from None
    if not isinstance(weights, dict) or not all(isinstance(value, Tensor) for value in weights.values()):
        raise CheckpointError(f"{file} holds no state dict (tensors by name): save model.state_dict().")
    return weights


def _pretrain_config(source: str | Path, description: dict) -> PretrainConfig:
    if "labels" in description["config"]:
        raise CheckpointError(f"{source} is a fine-tuned classifier: it has P, but no A and no positions.")
    return PretrainConfig.from_dict(description["config"])


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
    config = _pretrain_config(name_or_folder, json.loads((newest / "checkpoint.json").read_text()))
    trained = {int(folder.name): load_pretrained(folder) for folder in list_checkpoints(newest.parent)}
    return {0: make_model(config).eval()} | trained


def known_models() -> list[str]:
    """What `load_pretrained` takes by name: the bundled models, and the pretraining runs that have a checkpoint."""
    found = {path.parent.parent for path in RUNS.glob("*/checkpoint/[0-9]*/") if path.is_dir()}
    return [*BUNDLED_MODELS, *sorted(run.name for run in found if _pretrained_there(run))]


def _pretrained_there(run: Path) -> bool:
    try:
        return "num_masked" in json.loads((run / "config.json").read_text())
    except (OSError, ValueError):
        return False


FORMS = ("torchvision", "hub", "bundle")
MODEL_CARD = """---
library_name: selfie-lite
license: mit
tags: [self-supervised, selfie]
---

P, the patch network of *Selfie* (arXiv 1906.02940): a ResNet's first three blocks, as selfie-lite trained them.
The weights keep torchvision's names.

```python
from selfie_lite import PatchNetwork

patch_network = PatchNetwork.from_pretrained("FOLDER")  # (B, N, 3, S, S) normalised float -> (B, N, D)
```

How they were made:

```json
MADE
```
"""


def export(source: str | Path, form: str, target: Path) -> str:
    """Write the newest weights of a run, or of what else `load_patch_network` takes, to `target`.

    Args:
        form: "torchvision", a .safetensors file with the state dict of torchvision's and timm's ResNet (P's part, or of
            a fine-tuning run all of it); "hub", a folder for `PatchNetwork.from_pretrained`; "bundle", a folder for
            `load_pretrained`.

    Returns:
        The lines of Python that read it.

    Raises:
        CheckpointError: if there are no whole weights. SelfieLiteError: if `target` is taken or has the wrong ending.
    """
    require_choice("form", form, FORMS)
    if target.is_file() or target.is_dir() and (form == "torchvision" or any(target.iterdir())):
        raise SelfieLiteError(f"{target} is not empty: name a new {'file' if form == 'torchvision' else 'folder'}.")
    if form == "torchvision" and target.suffix != ".safetensors":
        raise SelfieLiteError(f"name a file that ends in .safetensors, not {target}.")
    target.parent.mkdir(parents=True, exist_ok=True)
    if form == "bundle":
        _pretrain_config(source, read_checkpoint(source)[1])  # a classifier is no bundle
        export_pretrained(source, target)
        return f"load_pretrained('{target}')"
    patch_network = load_patch_network(source)
    weights, description = read_source(source)
    if form == "hub":
        target.mkdir(exist_ok=True)
        (target / "README.md").write_text(
            MODEL_CARD.replace("MADE", json.dumps(description, indent=1)), encoding="utf-8"
        )
        patch_network.save_pretrained(target)
        return f"PatchNetwork.from_pretrained('{target}')"
    if "fc.weight" not in weights:  # not a whole classifier
        weights = patch_network.state_dict()
    save_file({name: tensor.contiguous() for name, tensor in weights.items()}, target, metadata={"format": "pt"})
    num_classes = f"num_classes={len(weights['fc.bias'])}" if "fc.bias" in weights else ""
    lines = [f"model = torchvision.models.{patch_network.arch}({num_classes})"]
    if patch_network.stem == "small":  # torchvision's own first layers are for larger images
        lines.append("model.conv1, model.maxpool = nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.Identity()")
    lines.append(f"model.load_state_dict(load_file('{target}'), strict=False)")
    return "\n".join(lines)


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
