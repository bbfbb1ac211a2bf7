"""Pretraining: the Selfie step, its settings, and its presets."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar

import torch
from accelerate.utils import gather_object
from torch import Tensor

from selfie_lite.augment import normalize
from selfie_lite.data.datasets import ImageDataset, ImageFiles, load_dataset
from selfie_lite.errors import SelfieLiteError, require_number
from selfie_lite.patch_network import DIMS, NORMS
from selfie_lite.patches import PatchGrid, sample_masks, sample_offsets
from selfie_lite.selfie import Selfie, require_query_form
from selfie_lite.training.batches import Batches
from selfie_lite.training.config import TrainingConfig, option
from selfie_lite.training.device import PlainAccelerator, make_accelerator
from selfie_lite.training.features import knn_accuracy
from selfie_lite.training.loop import evaluate_parts, train
from selfie_lite.training.randomness import generator_of, seed_of
from selfie_lite.training.report import write_report
from selfie_lite.training.run import Task


@dataclass(frozen=True)
class PretrainConfig(TrainingConfig):
    """The settings of a pretraining run."""

    arch: str = option("resnet50", "resnet50 or resnet18", choices=DIMS)
    image_size: int = option(32, "height and width of the images, pixels", "[1, inf)")
    patch_size: int = option(8, "height and width of a patch, pixels", "[1, inf)")
    num_masked: int = option(0, "hidden patches of each image; 0 for a quarter of them", "[0, inf)")
    queries: str = option(
        "additive",
        "form of query: additive (the paper's), location (no context), multiplicative, mlp or mask_token",
    )
    pooling: str = option("attention", "attention, mean or max")
    dropout: float = option(0.1, "in A, a probability", "[0, 1)")
    initial_length: float = option(1.0, "of u and of every location vector before training (Euclidean)", "(0, inf)")
    encoder_positions: bool = option(True, "positions on the visible patches too; the public implementations have none")
    gap: int = option(
        0, "pixels by which a patch is smaller than its cell, cropped at random, so that no border goes on"
    )
    norm: str = option("batch", "batch or group normalisation in P", choices=NORMS)
    tied: bool = option(True, "one P for visible and hidden patches; if not, that of the hidden ones is exported")
    padding: int = option(0, "pixels around small images before the crop; the paper has 4, which show the border")
    factorized: str = option(
        "auto", "yes: 7 row and 7 column vectors, say, not 49; no; auto: yes above 16 locations",
        choices=["auto", "yes", "no"],
    )  # fmt: skip
    held_out: int = option(1000, "training images set aside, never trained on, for the held-out accuracy", "[1, inf)")
    knn: bool = option(True, "at each evaluation, also the nearest-neighbour accuracy of the held-out images' features")

    FREE: ClassVar = TrainingConfig.FREE | {"knn"}

    def __post_init__(self) -> None:
        super().__post_init__()
        require_number("padding", self.padding, 0, self.image_size - 1)
        require_number("num_masked", self.num_masked, 0, self.grid.count - 1)  # and refuses sizes that do not fit
        require_number("gap", self.gap, 0, self.patch_size - 1)
        require_query_form(self.queries, self.pooling, self.encoder_positions, self.tied)

    @property
    def grid(self) -> PatchGrid:
        return PatchGrid(self.image_size, self.patch_size)

    @property
    def chance(self) -> float:
        """Accuracy of guessing, 1/M."""
        return 1 / (self.num_masked or max(1, self.grid.count // 4))


PRESETS = {
    "laptop": PretrainConfig(
        name="laptop", data="sample", arch="resnet18", steps=60, batch_size=32, optimizer="adamw", learning_rate=1e-3,
        weight_decay=0.05, warmup_steps=12, eval_every=20, save_every=20, log_every=5, held_out=500,
    ),
    "laptop49": PretrainConfig(  # 49 locations, as at 224×224, from 7×7 patches of 8×8 pixels
        name="laptop49", data="imagenette", arch="resnet18", image_size=56, queries="location", steps=200,
        batch_size=64, optimizer="adamw", learning_rate=1e-3, weight_decay=0.05, warmup_steps=20, eval_every=50,
        save_every=50, log_every=10, held_out=300,
    ),
    "cifar10": PretrainConfig(
        name="cifar10", data="cifar10", steps=40_000, batch_size=512, learning_rate=0.2, warmup_steps=1000,
        eval_every=1000, save_every=1000, log_every=50, held_out=2000,
    ),
    "imagenet32": PretrainConfig(
        name="imagenet32", data="imagenet32", steps=250_000, batch_size=512, learning_rate=0.2, warmup_steps=5000,
        eval_every=5000, save_every=5000, log_every=50, held_out=5000,
    ),
    "imagenette": PretrainConfig(
        name="imagenette", data="imagenette", image_size=224, patch_size=32, steps=10_000, batch_size=128,
        learning_rate=0.1, warmup_steps=500, eval_every=500, save_every=500, log_every=20, held_out=500,
    ),
    "imagenet": PretrainConfig(
        name="imagenet", data="imagenet", image_size=224, patch_size=32, steps=250_000, batch_size=512,
        learning_rate=0.2, warmup_steps=5000, eval_every=5000, save_every=5000, log_every=50, held_out=5000, workers=16,
    ),
}  # fmt: skip


def make_model(config: PretrainConfig) -> Selfie:
    """The model of a configuration, with the first weights that its seed gives."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of(config.seed, "first weights"))
        factorized = {"auto": None, "yes": True, "no": False}[config.factorized]
        model = Selfie(
            config.grid, config.arch, config.num_masked or None, config.queries, config.pooling, factorized=factorized,
            dropout=config.dropout, encoder_positions=config.encoder_positions, gap=config.gap, norm=config.norm,
            tied=config.tied,
        )  # fmt: skip
    with torch.no_grad():
        for e in model.positions.parameters():
            e *= config.initial_length
        if model.has_attention:  # the last layer normalisation gives u, and the mask tokens' v, its length
            model.pool.blocks[-1].norm2.weight *= config.initial_length
    return model


def split_held_out(count: int, held_out: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Indices to train on and to hold out: the same for every run on the same data.

    Raises:
        SelfieLiteError: if nothing would be left to train on.
    """
    if held_out >= count:
        raise SelfieLiteError(f"held_out {held_out} leaves nothing to train on: there are {count} images.")
    order = torch.randperm(count, generator=generator_of("held out"))
    return order[held_out:].sort().values, order[:held_out].sort().values


def pretrain(config: PretrainConfig, on_log: Callable[[list[dict]], None] | None = None) -> Path:
    """Pretrain from `config`, or go on from a checkpoint; gives the run's folder, runs/NAME.

    Args:
        on_log: called with all metrics so far, a list of {"step": …, …}, whenever some are added.

    Raises:
        SelfieLiteError: for a setting or data that do not fit, a bad loss, a damaged checkpoint, a full disk.
    """
    if config.chance == 1:
        raise SelfieLiteError("with one hidden patch there is nothing to choose from: set num_masked to 2 or more.")
    model = make_model(config)
    accelerator = make_accelerator(config)
    dataset = load_dataset(config.data, "train", config.image_size)
    keep, aside = split_held_out(len(dataset), config.held_out)
    batches = Batches(dataset, keep, config, accelerator)
    title = f"Selfie pretraining of a {config.arch} on {config.data}."
    task = Task(
        draw=make_draw(config, model.num_masked, batches.crop),
        forward=forward,
        evaluate=lambda model: evaluate_held_out(model, dataset, aside, config, accelerator),
        report=partial(write_report, config, "pretrain", title, "held_out_accuracy", round(1 / config.chance)),
    )
    train(config, task, accelerator, model, batches, on_log)
    accelerator.print(f"{config.folder}: README.md has the curve, checkpoint/ the weights.")
    return config.folder


def make_draw(config: PretrainConfig, num_masked: int, crop: Callable) -> Callable[..., tuple[Tensor, ...]]:
    """All that is random in a training step, drawn outside what is compiled: uint8 images → crops (`Batches.crop`),
    visible and masked locations, and the offsets if there is a gap."""

    def draw(images: Tensor, labels: Tensor, generator: torch.Generator) -> tuple[Tensor, ...]:
        crops = crop(images, generator)
        visible, masked = sample_masks(len(images), config.grid, num_masked, generator, images.device)
        if not config.gap:
            return crops, visible, masked
        offsets = sample_offsets(len(images), config.grid, config.gap, generator, images.device)
        return crops, visible, masked, offsets

    return draw


def forward(
    model: Selfie, crops: Tensor, visible: Tensor, masked: Tensor, offsets: Tensor | None = None
) -> dict[str, Tensor]:
    """The forward pass of a training step, on what was drawn."""
    out = model(crops, visible, masked, offsets=offsets)
    return {"loss": out.loss, "accuracy": out.accuracy}


def evaluate_held_out(
    model: Selfie, dataset: ImageDataset | ImageFiles, indices: Tensor, config: PretrainConfig,
    accelerator: PlainAccelerator,
) -> dict[str, float]:  # fmt: skip
    """Loss and accuracy on images never trained on, as they are, at masks fixed for each image; and, if they have
    labels, how often the nearest ones of them, by the features of whole images, are of the same class."""
    visible, masked = sample_masks(len(indices), model.grid, model.num_masked, generator_of("evaluation masks"))
    watching, features, classes = config.knn and len(dataset.classes) > 1, [], []

    def measure(images: Tensor, labels: Tensor, part: Tensor) -> tuple[Tensor, Tensor]:
        out = model(images, visible[part].to(images.device), masked[part].to(images.device))
        if watching:
            maps = model.patch_network.feature_maps(normalize(images))  # (b, D, h, w)
            features.append(maps.float().mean(dim=(2, 3)).cpu())
            classes.append(labels.cpu())
        return out.loss, out.accuracy

    loss, accuracy = evaluate_parts(model, dataset, indices, config.batch_size, accelerator, config.workers, measure)
    numbers = {"held_out_loss": loss, "held_out_accuracy": accuracy}
    if watching:
        x, y = (torch.cat(gather_object(parts)) for parts in (features, classes))
        numbers["knn_accuracy"] = knn_accuracy(x, y)
    return numbers
