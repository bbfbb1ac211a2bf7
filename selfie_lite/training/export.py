"""Pass a run's weights on: to torchvision and timm, to the Hugging Face hub, or as a bundle for `load_pretrained`."""

import json
import shutil
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from selfie_lite.errors import SelfieLiteError, require_choice
from selfie_lite.files import disk_errors_in_words, sha256, whole_file, whole_folder, write_file
from selfie_lite.training.weights import (
    load_patch_network,
    pretrain_config,
    pretrained_folder,
    read_checkpoint,
    read_source,
)

FORMS = ("torchvision", "hub", "bundle")
MODEL_CARD = """---
library_name: selfie-lite
license: mit
tags: [self-supervised, selfie]
---

P, the patch network of *Selfie* (arXiv 1906.02940): (B, N, 3, S, S) normalised float to (B, N, D), torchvision's names.
Read it by `selfie_lite.PatchNetwork.from_pretrained("FOLDER")`. How it was made:

```json
MADE
```
"""


def export(source: str | Path, form: str, target: str | Path) -> str:
    """Write the newest weights of a run, or of what else `load_patch_network` takes, to `target`, whole or not at all.

    Args:
        form: "torchvision", a .safetensors file with the state dict of torchvision's and timm's ResNet (P's part, or of
            a fine-tuning run all of it); "hub", a folder for `PatchNetwork.from_pretrained`; "bundle", a folder for
            `load_pretrained`.
        target: a file that is not there yet, or a folder that is not there or empty.

    Returns:
        The lines of Python that read it.

    Raises:
        CheckpointError: if there are no whole weights. SelfieLiteError: if `target` is taken or has the wrong ending.
    """
    require_choice("form", form, FORMS)
    target = Path(target)
    _require_free(target, file=form == "torchvision")
    if form == "bundle":
        export_pretrained(source, target)
        return f"load_pretrained('{target}')"
    patch_network = load_patch_network(source)
    weights, description = read_source(source)
    if form == "hub":
        with _in_words(target), whole_folder(target.resolve(), "model.safetensors") as work:
            write_file(work / "README.md", MODEL_CARD.replace("MADE", json.dumps(description, indent=1)))
            patch_network.save_pretrained(work)
        return f"PatchNetwork.from_pretrained('{target}')"
    whole = "fc.weight" in weights  # a classifier
    with _in_words(target), whole_file(target.resolve()) as work:
        _save(weights if whole else patch_network.state_dict(), work)
    options = [f"num_classes={len(weights['fc.bias'])}"] if whole else []
    options += ["norm_layer=lambda channels: nn.GroupNorm(32, channels)"] * (patch_network.norm == "group")
    lines = [f"model = torchvision.models.{patch_network.arch}({', '.join(options)})"]
    if patch_network.stem == "small":  # torchvision's own first layers are for larger images
        lines.append("model.conv1, model.maxpool = nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.Identity()")
    return "\n".join([*lines, f"model.load_state_dict(load_file('{target}'), strict=False)"])


def export_pretrained(run: str | Path, folder: str | Path) -> Path:
    """Write the weights of a run's newest checkpoint as float16, half the size, with their SHA-256, the config, the
    metrics and the environment of the run; `load_pretrained(folder)` reads them.

    Raises:
        CheckpointError: if the run has no whole checkpoint, or is a classifier. SelfieLiteError: if `folder` is not
            empty.
    """
    folder = Path(folder)
    _require_free(folder, file=False)
    weights, description = read_checkpoint(run)
    pretrain_config(run, description)  # a classifier is no bundle
    beside = pretrained_folder(run)
    beside = beside.parent.parent if beside.parent.name == "checkpoint" else beside
    with _in_words(folder), whole_folder(folder.resolve(), "checkpoint.json") as work:
        _save({n: t.half() if t.is_floating_point() else t for n, t in weights.items()}, work / "model.safetensors")
        description |= {"sha256": {"model.safetensors": sha256(work / "model.safetensors")}}
        write_file(work / "checkpoint.json", json.dumps(description, indent=1) + "\n")
        for name in ("metrics.jsonl", "environment.json"):
            if (beside / name).is_file():
                shutil.copyfile(beside / name, work / name)
    return folder


def _require_free(target: Path, file: bool) -> None:
    """What is there already is never written over."""
    if file and target.suffix != ".safetensors":
        raise SelfieLiteError(f"name a file that ends in .safetensors, not {target}.")
    with _in_words(target):
        taken = any(target.iterdir()) or file if target.is_dir() else target.exists() or target.is_symlink()
    if taken:
        raise SelfieLiteError(f"{target} is not empty: name a new {'file' if file else 'folder'}.")


def _in_words(target: Path) -> Any:
    return disk_errors_in_words(target, "Nothing was exported.")


def _save(tensors: dict[str, Tensor], file: Path) -> None:
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, file, metadata={"format": "pt"})
