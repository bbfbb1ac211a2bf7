"""The optimiser and the learning rate at each step."""

import math

import torch
from torch import nn

from selfie_lite.training.config import TrainingConfig


def make_optimizer(model: nn.Module, config: TrainingConfig, fused: bool | None = None) -> torch.optim.Optimizer:
    """Weights of convolutions and linear layers decay; vectors (biases, normalisation, tokens) and positions do not.

    fused: one kernel for all of an update; None for what is faster on the device.
    """
    decay: list[nn.Parameter] = []
    keep: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        (decay if parameter.ndim >= 2 and not name.startswith("positions") else keep).append(parameter)
    groups = [{"params": decay, "weight_decay": config.weight_decay}, {"params": keep, "weight_decay": 0.0}]
    fused = next(model.parameters()).device.type in ("cuda", "cpu") if fused is None else fused
    fused = fused or None  # None leaves torch its own default, False would take its slowest path
    if config.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=config.learning_rate, momentum=0.9, nesterov=True, fused=fused)
    return torch.optim.AdamW(groups, lr=config.learning_rate, fused=fused)


def learning_rate_at(step: int, config: TrainingConfig) -> float:
    """Linear warm-up, then half a cosine down to 0. `step` counts from 0."""
    warmup = min(config.warmup_steps, config.steps)
    if step < warmup:
        return config.learning_rate * (step + 1) / warmup
    return config.learning_rate * (1 + math.cos(math.pi * (step - warmup) / max(1, config.steps - warmup))) / 2
