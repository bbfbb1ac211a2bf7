"""Fine-tuning: P inside a whole ResNet, trained end to end on labels; and the same network from scratch, its baseline
(paper, abstract and experiments)."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import torch
from torchvision.models import ResNet

from selfie_lite.augment import normalize
from selfie_lite.data.datasets import load_dataset
from selfie_lite.errors import SelfieLiteError, require_number
from selfie_lite.training.batches import Batches
from selfie_lite.training.classifier import evaluate_classifier, load_classifier, resnet50_classifier, score
from selfie_lite.training.config import TrainingConfig, option
from selfie_lite.training.device import make_accelerator
from selfie_lite.training.labels import labelled_subset, require_same_classes
from selfie_lite.training.loop import train
from selfie_lite.training.randomness import seed_of
from selfie_lite.training.report import write_report
from selfie_lite.training.results import ended_result, in_words, keep_result, own_lines, write_result
from selfie_lite.training.run import Task, best_line, read_metrics
from selfie_lite.training.weights import load_patch_network, read_source

__all__ = [
    "FINETUNE_PRESETS",
    "SCRATCH",
    "FinetuneConfig",
    "finetune",
    "labelled_subset",
    "load_classifier",
    "read_metrics",
    "require_same_classes",
    "resnet50_classifier",
    "search_learning_rate",
]

SCRATCH = "scratch"


@dataclass(frozen=True)
class FinetuneConfig(TrainingConfig):
    """The settings of a fine-tuning run."""

    pretrained: str = option(
        SCRATCH, "where P comes from: a run, additive or mask_token (bundled), a file or folder of weights, or scratch",
        flag="--from",
    )  # fmt: skip
    labels: float = option(1.0, "part of the training labels to use, above 0 and up to 1", "(0, 1]")
    validation: float = option(0.1, "part of those labels to choose on, never trained on", "(0, 0.5]")
    arch: str = option("", "resnet50 or resnet18; unsaid: that of P, from scratch resnet50")
    stem: str = option("", "small or imagenet; unsaid: that of P, from scratch small up to 64 pixels")
    image_size: int = option(32, "height and width of the images, pixels", "[1, 4096]")
    padding: int = option(4, "pixels of black around images of up to 64 pixels before the crop")
    test: bool = option(True, "read the test images, once, when training has ended")
    results: str = option("", "a .jsonl file that the result is appended to as one line")

    FREE: ClassVar = TrainingConfig.FREE | {"test", "results"}

    def __post_init__(self) -> None:
        super().__post_init__()
        require_number("padding", self.padding, 0, self.image_size - 1)


FINETUNE_PRESETS = {
    "laptop": FinetuneConfig(
        name="finetuned", pretrained="additive", data="sample", arch="resnet18", steps=40, batch_size=32,
        optimizer="adamw", learning_rate=1e-3, weight_decay=0.05, warmup_steps=4, eval_every=10, save_every=40,
        log_every=5,
    ),
    "cifar10": FinetuneConfig(
        name="finetuned-cifar10", data="cifar10", arch="resnet50", steps=4000, batch_size=256, learning_rate=0.05,
        weight_decay=5e-4, warmup_steps=200, eval_every=200, save_every=1000, log_every=50,
    ),
    "imagenet32": FinetuneConfig(
        name="finetuned-imagenet32", data="imagenet32", arch="resnet50", steps=50_000, batch_size=512,
        learning_rate=0.2, warmup_steps=2000, eval_every=2500, save_every=2500, log_every=50,
    ),
    "imagenette": FinetuneConfig(
        name="finetuned-imagenette", data="imagenette", arch="resnet50", image_size=224, steps=3000, batch_size=128,
        learning_rate=0.05, warmup_steps=200, eval_every=200, save_every=1000, log_every=50,
    ),
    "imagenet": FinetuneConfig(
        name="finetuned-imagenet", data="imagenet", arch="resnet50", image_size=224, steps=50_000, batch_size=512,
        learning_rate=0.2, warmup_steps=2000, eval_every=2500, save_every=2500, log_every=50, workers=16,
    ),
}  # fmt: skip


def make_classifier(config: FinetuneConfig, num_classes: int) -> tuple[ResNet, FinetuneConfig]:
    """The network of a configuration as it is before training, and the configuration with arch and stem filled in.

    What is fresh in it follows from the seed: `layer4` and `fc` are the same from scratch and with any P.
    """
    patch_network, arch, stem = None, config.arch, config.stem
    if config.pretrained == SCRATCH:
        arch, stem = arch or "resnet50", stem or ("small" if config.image_size <= 64 else "imagenet")
    else:
        patch_network = load_patch_network(config.pretrained)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of(config.seed, "first weights"))
        model = resnet50_classifier(patch_network, num_classes, arch, stem)
    if patch_network is not None:
        arch, stem = patch_network.arch, patch_network.stem
    return model, config.updated(arch=arch, stem=stem)


def finetune(
    config: FinetuneConfig, on_log: Callable[[list[dict]], None] | None = None, more: dict[str, Any] | None = None
) -> Path:
    """Train a classifier end to end from P or from scratch, or go on from a checkpoint; gives the run's folder.

    In the end the weights are those of the evaluation that was best on the validation part of the training labels; only
    then the test images are read, once: the accuracy is in runs/NAME/result.json. A run that has ended stays as it is.

    Args:
        on_log: called with all metrics so far, a list of {"step": …, …}, at each new one. more: for the result to say.

    Raises:
        SelfieLiteError: for a setting, data or weights that do not fit, a bad loss, a full disk.
    """
    if config.results:
        own_lines(Path(config.results).expanduser())
    if (result := ended_result(config)) and (more or {}).items() <= result.items():
        keep_result(config, result)
        print(f"{config.folder} has ended: {in_words(result)}. There is nothing to go on with.")
        return config.folder
    dataset = load_dataset(config.data, "train", config.image_size)
    if config.test:
        require_same_classes(dataset, load_dataset(config.data, "test", config.image_size))
    keep, aside = labelled_subset(dataset.labels, config.labels, config.validation, config.seed, dataset.classes)
    origin = {} if config.pretrained == SCRATCH else {"pretraining": read_source(config.pretrained)[1]}
    model, config = make_classifier(config, len(dataset.classes))
    accelerator = make_accelerator(config)
    batches = Batches(dataset, keep, config, accelerator)
    require_values_to_normalise(config, accelerator.num_processes * config.accumulate)

    def forward(model, crops, labels):
        loss, accuracy = score(model(normalize(crops)), labels)
        return {"loss": loss, "accuracy": accuracy}

    def evaluate(model):
        loss, accuracy = evaluate_classifier(model, dataset, aside, config.batch_size, accelerator, config.workers)
        return {"validation_loss": loss, "validation_accuracy": accuracy}

    draw = lambda images, labels, generator: (batches.crop(images, generator), labels)  # noqa: E731
    start = "from scratch" if config.pretrained == SCRATCH else f"from P of {config.pretrained}"
    title = f"A {config.arch} {start}, trained on {config.labels:.0%} of the labels of {config.data}."
    report = partial(write_report, config, "finetune", title, "validation_accuracy", len(dataset.classes))
    task = Task(draw, forward, evaluate, report, select="validation_accuracy")
    begun = time.perf_counter()
    lines = train(config, task, accelerator, model, batches, on_log)
    if lines and lines[-1]["step"] == config.steps:
        seconds = None if config.resume else round(time.perf_counter() - begun, 1)
        counts = {"training_images": len(keep), "validation_images": len(aside), "seconds": seconds}
        write_result(config, accelerator, counts | origin | (more or {}))
    return config.folder


def require_values_to_normalise(config: FinetuneConfig, parts: int) -> None:
    """Raise SelfieLiteError if batch normalisation would see a single value a channel."""
    small = config.image_size <= (8 if config.stem == "small" else 32)  # the fourth block's maps are 1×1
    if small and config.batch_size == parts:
        raise SelfieLiteError(
            f"batch_size {config.batch_size} gives batch normalisation one value a channel at {config.image_size} "
            f"pixels: use {2 * parts} or more."
        )


def search_learning_rate(config: FinetuneConfig, learning_rates: Sequence[float]) -> Path:
    """Fine-tune once with each learning rate, none of them reading the test images, and then test the one whose
    validation accuracy is best (if `config.test`). Gives the folder of that run, runs/NAME-RATE. With
    `config.resume` "newest", runs that have ended are not run again, and those never started are.

    Raises:
        SelfieLiteError: as `finetune`; or if a run was stopped.
    """
    runs = _runs_of_search(config, learning_rates)
    tried = {}
    for rate, one in runs.items():
        lines = read_metrics(finetune(one))
        if lines[-1]["step"] != config.steps:
            raise SelfieLiteError(f"the run {one.name} was stopped; without it there is nothing to choose from.")
        tried[rate] = best_line(lines, "validation_accuracy")["validation_accuracy"]
    best = runs[max(tried, key=lambda rate: tried[rate])]
    searched = {"searched_learning_rates": {f"{rate:g}": accuracy for rate, accuracy in tried.items()}}
    return finetune(best.updated(test=config.test, results=config.results, resume="newest"), more=searched)


def _runs_of_search(config: FinetuneConfig, learning_rates: Sequence[float]) -> dict[float, FinetuneConfig]:
    """The run of each learning rate; refuses, before the first begins, what one of them would refuse."""
    if len(set(learning_rates)) < 2:
        raise SelfieLiteError(f"a search takes two learning rates or more, but got {list(learning_rates)}.")
    if config.resume not in ("", "newest"):
        raise SelfieLiteError(f"a search goes on with resume newest, not from step {config.resume}.")
    if config.results:
        own_lines(Path(config.results).expanduser())
    runs = {}
    for rate in learning_rates:
        one = config.updated(name=f"{config.name}-{rate:g}", learning_rate=float(rate), test=False, results="")
        begun = (one.folder / "config.json").is_file()
        if begun and not config.resume:
            raise SelfieLiteError(f"{one.folder} already holds a run: give this search another --name.")
        runs[rate] = one if begun else one.updated(resume="")
    if len({one.name for one in runs.values()}) < len(runs):
        raise SelfieLiteError(f"learning rates as near as {', '.join(map(str, runs))} share a name: take others.")
    if config.test:
        train_part, test_part = (load_dataset(config.data, split, config.image_size) for split in ("train", "test"))
        require_same_classes(train_part, test_part)
    return runs
