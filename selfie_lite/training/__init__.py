"""Pretraining and fine-tuning, and the weights they leave: from settings to a checkpoint."""

from selfie_lite.training.finetune import FinetuneConfig, finetune, load_classifier, resnet50_classifier
from selfie_lite.training.pretrain import PretrainConfig, pretrain
from selfie_lite.training.weights import load_patch_network, load_pretrained

__all__ = [
    "FinetuneConfig",
    "PretrainConfig",
    "finetune",
    "load_classifier",
    "load_patch_network",
    "load_pretrained",
    "pretrain",
    "resnet50_classifier",
]
