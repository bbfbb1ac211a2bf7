"""The network that is fine-tuned: torchvision's ResNet, its first three blocks from P."""

from pathlib import Path

import torch.nn.functional as F
from torch import Tensor
from torchvision.models import ResNet

from selfie_lite.augment import normalize
from selfie_lite.data.datasets import ImageDataset, ImageFiles
from selfie_lite.errors import SelfieLiteError, require_number
from selfie_lite.patch_network import PatchNetwork, make_resnet, norm_of
from selfie_lite.selfie import Selfie
from selfie_lite.training.checkpoint import CheckpointError
from selfie_lite.training.device import PlainAccelerator
from selfie_lite.training.loop import evaluate_parts
from selfie_lite.training.weights import fill, load_patch_network, read_checkpoint


def resnet50_classifier(
    pretrained: PatchNetwork | Selfie | str | Path | None = None, num_classes: int = 10, arch: str = "", stem: str = ""
) -> ResNet:
    """torchvision's ResNet whose first layers and three blocks are P's, with a fresh fourth block and classifier.

    Takes normalised float images (B, 3, H, W), gives logits (B, num_classes).

    Args:
        pretrained: P, a model that has one, or what `load_patch_network` takes; None for a network all of it fresh.
        arch, stem: as in `PatchNetwork`. Default: those of P; without one, "resnet50" and "small".

    Raises:
        SelfieLiteError: if P is of another arch or stem, or cannot be found; for fewer than two classes; for other
            types.
    """
    require_number("num_classes", num_classes, 2)
    if isinstance(pretrained, str | Path):
        pretrained = load_patch_network(pretrained)
    patch_network = pretrained.patch_network if isinstance(pretrained, Selfie) else pretrained
    if patch_network is None:
        return make_resnet(arch or "resnet50", stem or "small", num_classes)
    if not isinstance(patch_network, PatchNetwork):
        raise SelfieLiteError(
            "pretrained is a PatchNetwork, a Selfie model, a name, a file, a folder, or None for fresh weights; not "
            f"{type(pretrained).__name__}."
        )
    for name, wanted in (("arch", arch), ("stem", stem)):
        has = getattr(patch_network, name)
        if wanted and wanted != has:
            raise SelfieLiteError(f"P has {name} {has}, but {wanted} was asked for. Leave {name} out, or say {has}.")
    model = make_resnet(patch_network.arch, patch_network.stem, num_classes, patch_network.norm)
    model.load_state_dict(patch_network.state_dict(), strict=False)  # strict would ask for layer4 and fc
    return model


def load_classifier(name_or_folder: str | Path) -> ResNet:
    """The classifier of a fine-tuning run, with the weights it kept, in evaluation mode, float32, on the CPU.

    Takes normalised images (`augment.normalize`), gives logits. `name_or_folder` is as in `load_pretrained`.

    Raises:
        CheckpointError: if there is none, or it is damaged, or the run did not fine-tune.
    """
    weights, description = read_checkpoint(name_or_folder)
    config, bias = description["config"], weights.get("fc.bias")
    if "labels" not in config or bias is None or bias.ndim != 1:
        raise CheckpointError(f"{name_or_folder} was pretrained, not fine-tuned: it has no classifier.")
    try:
        model = make_resnet(config.get("arch"), config.get("stem"), len(bias), norm_of(weights))
    except SelfieLiteError as error:
        raise CheckpointError(f"{name_or_folder} has settings that cannot be used: {error}") from None
    return fill(model, weights, name_or_folder)


def evaluate_classifier(
    model: ResNet, dataset: ImageDataset | ImageFiles, indices: Tensor, batch_size: int, accelerator: PlainAccelerator,
    workers: int = 0,
) -> tuple[float, float]:  # fmt: skip
    """Loss and accuracy on the images at `indices`, as they are."""

    def measure(images: Tensor, labels: Tensor, part: Tensor) -> tuple[Tensor, Tensor]:
        return score(model(normalize(images)), labels)

    return evaluate_parts(model, dataset, indices, batch_size, accelerator, workers, measure)


def score(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Loss and accuracy of logits (B, classes) against labels (B,)."""
    return F.cross_entropy(logits, labels), (logits.argmax(dim=1) == labels).float().mean()
