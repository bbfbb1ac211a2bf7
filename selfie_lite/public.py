"""The public names. `selfie_lite` gives them too, and imports this file when it is asked for the first of them."""

try:
    import torch  # noqa: F401
    import torchvision  # noqa: F401
except (ImportError, RuntimeError, OSError) as error:
    from importlib.metadata import PackageNotFoundError, version

    def _installed(package: str) -> str:
        try:
            return version(package)
        except PackageNotFoundError:
            return "missing"

    raise ImportError(
        f"torch {_installed('torch')} and torchvision {_installed('torchvision')} do not work together ({error}). "
        "Install both at once, from one index: python -m pip install --force-reinstall torch torchvision"
    ) from None

from selfie_lite.attention_pooling import AttentionBlock, AttentionPooling
from selfie_lite.augment import augment, denormalize, normalize
from selfie_lite.data.datasets import ImageDataset, ImageFiles, load_dataset
from selfie_lite.errors import DatasetNotFoundError, SelfieLiteError, UnreadableImageError
from selfie_lite.loss import masked_patch_logits, multi_location_loss, one_location_loss
from selfie_lite.patch_network import PatchNetwork
from selfie_lite.patches import PatchGrid, patchify, sample_masks, unpatchify
from selfie_lite.positions import PositionalEmbedding
from selfie_lite.selfie import Selfie, SelfieOutput

__all__ = [
    "AttentionBlock",
    "AttentionPooling",
    "DatasetNotFoundError",
    "ImageDataset",
    "ImageFiles",
    "PatchGrid",
    "PatchNetwork",
    "PositionalEmbedding",
    "Selfie",
    "SelfieLiteError",
    "SelfieOutput",
    "UnreadableImageError",
    "augment",
    "denormalize",
    "load_dataset",
    "masked_patch_logits",
    "multi_location_loss",
    "normalize",
    "one_location_loss",
    "patchify",
    "sample_masks",
    "unpatchify",
]
