"""Fine-tuning: P inside a whole ResNet, trained end to end on labels; and the same network from scratch, its baseline
(paper, abstract and experiments)."""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from torch import Tensor
from torchvision.models import ResNet

from selfie_lite.augment import make_crop, normalize
from selfie_lite.data.datasets import ImageDataset, ImageFiles, load_dataset
from selfie_lite.errors import SelfieLiteError
from selfie_lite.machine import environment
from selfie_lite.patch_network import PatchNetwork, make_resnet
from selfie_lite.selfie import Selfie
from selfie_lite.training.batches import Batches
from selfie_lite.training.checkpoint import CheckpointError
from selfie_lite.training.config import TrainingConfig, option
from selfie_lite.training.device import make_accelerator
from selfie_lite.training.loop import evaluate_parts, train
from selfie_lite.training.randomness import generator_of, seed_of
from selfie_lite.training.run import best_line, read_metrics, write_report
from selfie_lite.training.weights import load_patch_network, read_checkpoint, read_source

SCRATCH = "scratch"


@dataclass(frozen=True)
class FinetuneConfig(TrainingConfig):
    """The settings of a fine-tuning run."""

    pretrained: str = option(
        SCRATCH, "where P comes from: a run, additive or mask_token (bundled), a file or folder of weights, or scratch",
        flag="--from",
    )  # fmt: skip
    labels: float = option(1.0, "part of the training labels to use, above 0 and up to 1")
    validation: float = option(0.1, "part of those labels to choose on, never trained on")
    arch: str = option("", "resnet50 or resnet18; unsaid: that of P, from scratch resnet50")
    stem: str = option("", "small or imagenet; unsaid: that of P, from scratch small up to 64 pixels")
    image_size: int = option(32, "height and width of the images, pixels")
    padding: int = option(4, "pixels of black around images of up to 64 pixels before the crop")
    test: bool = option(True, "read the test images, once, when training has ended")
    results: str = option("", "a .jsonl file that the result is appended to as one line")

    FREE = TrainingConfig.FREE | {"test", "results"}

    def __post_init__(self):
        super().__post_init__()
        if not 0 < self.labels <= 1:
            raise SelfieLiteError(f"labels is a part of the labels, above 0 and up to 1, but is {self.labels}.")
        if not 0 < self.validation <= 0.5:
            raise SelfieLiteError(f"validation must be above 0 and up to 0.5, but is {self.validation}.")
        if not 0 <= self.padding < self.image_size:
            raise SelfieLiteError(f"padding must lie between 0 and {self.image_size - 1}, but is {self.padding}.")


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
    "imagenette": FinetuneConfig(
        name="finetuned-imagenette", data="imagenette", arch="resnet50", image_size=224, steps=3000, batch_size=128,
        learning_rate=0.05, warmup_steps=200, eval_every=200, save_every=1000, log_every=50,
    ),
    "imagenet": FinetuneConfig(
        name="finetuned-imagenet", data="imagenet", arch="resnet50", image_size=224, steps=50_000, batch_size=512,
        learning_rate=0.2, warmup_steps=2000, eval_every=2500, save_every=2500, log_every=50, workers=16,
    ),
}  # fmt: skip


def resnet50_classifier(
    pretrained: PatchNetwork | Selfie | str | Path | None = None, num_classes: int = 10, arch: str = "", stem: str = ""
) -> ResNet:
    """torchvision's ResNet whose first layers and three blocks are P's, with a fresh fourth block and classifier.

    Takes normalised float images (B, 3, H, W), gives logits (B, num_classes).

    Args:
        pretrained: P, a model that has one, or what `load_patch_network` takes; None for a network all of it fresh.
        arch, stem: as in `PatchNetwork`. Default: those of P; without one, "resnet50" and "small".

    Raises:
        SelfieLiteError: if P is of another arch or stem, or cannot be found; or for fewer than two classes.
    """
    if num_classes < 2:
        raise SelfieLiteError(f"num_classes must be 2 or more, but is {num_classes}.")
    if isinstance(pretrained, str | Path):
        pretrained = load_patch_network(pretrained)
    patch_network = pretrained.patch_network if isinstance(pretrained, Selfie) else pretrained
    if patch_network is None:
        return make_resnet(arch or "resnet50", stem or "small", num_classes)
    for name, wanted in (("arch", arch), ("stem", stem)):
        has = getattr(patch_network, name)
        if wanted and wanted != has:
            raise SelfieLiteError(f"P has {name} {has}, but {wanted} was asked for. Leave {name} out, or say {has}.")
    model = make_resnet(patch_network.arch, patch_network.stem, num_classes)
    model.load_state_dict(patch_network.state_dict(), strict=False)  # strict would ask for layer4 and fc
    return model


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


def labelled_subset(labels: Tensor, fraction: float, validation: float = 0.1, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Which images' labels may be used: as many of each class as its share, fixed by the seed, and nested, so that a
    smaller fraction is part of a larger one.

    Args:
        labels: (n,) int64, of the training images.
        fraction: of the labels, above 0 and up to 1.
        validation: part of those, again of each class, to choose settings on; at least one image of each class.

    Returns:
        Indices to train on, and to choose on, each (…,) int64 in increasing order. Both are nested.

    Raises:
        SelfieLiteError: if there is only one class, or a class is left with fewer than two images.
    """
    if not 0 < fraction <= 1:
        raise SelfieLiteError(f"labels is a part of the labels, above 0 and up to 1, but is {fraction}.")
    classes = labels.unique().tolist()
    if len(classes) < 2:
        raise SelfieLiteError("fine-tuning needs images of two classes or more: FOLDER/train/CLASS/*.")
    train, choose = [], []
    for label in classes:
        members = (labels == label).nonzero()[:, 0]
        count = round(fraction * len(members))
        if count < 2:
            raise SelfieLiteError(
                f"{fraction:g} of the {len(members)} labels of class {label} is {count}: too few, one is needed to "
                f"train on and one to choose on. Use at least {2 / len(members):.2g}."
            )
        order = members[torch.randperm(len(members), generator=generator_of(seed, "labels", label))][:count]
        aside = torch.arange(count) % round(1 / validation) == 0
        choose.append(order[aside])
        train.append(order[~aside])
    return torch.cat(train).sort().values, torch.cat(choose).sort().values


def finetune(config: FinetuneConfig, on_log: Callable[[list[dict]], None] | None = None) -> Path:
    """Train a classifier end to end from P or from scratch, or go on from a checkpoint; gives the run's folder.

    In the end the weights are those of the evaluation that was best on the validation part of the training labels, and
    only then the test images are read, once: the accuracy is in runs/NAME/result.json.

    Args:
        on_log: called with all metrics so far, a list of {"step": …, …}, whenever some are added.

    Raises:
        SelfieLiteError: for a setting, data or weights that do not fit, a bad loss, a full disk.
    """
    dataset = load_dataset(config.data, "train", config.image_size)
    if config.test:
        require_same_classes(dataset, load_dataset(config.data, "test", config.image_size))
    keep, aside = labelled_subset(dataset.labels, config.labels, config.validation, config.seed)
    model, config = make_classifier(config, len(dataset.classes))
    accelerator = make_accelerator(config)
    batches = Batches(dataset, keep, config, accelerator)
    crop = make_crop(config.image_size, config.padding)

    def forward(model, images, labels, generator):
        logits = model(normalize(crop(images, generator=generator)))
        return {"loss": F.cross_entropy(logits, labels), "accuracy": (logits.argmax(dim=1) == labels).float().mean()}

    def evaluate(model):
        loss, accuracy = evaluate_classifier(model, dataset, aside, config.batch_size, accelerator)
        return {"validation_loss": loss, "validation_accuracy": accuracy}

    def report(lines):
        start = "from scratch" if config.pretrained == SCRATCH else f"from P of {config.pretrained}"
        title = f"A {config.arch} {start}, trained on {config.labels:.0%} of the labels of {config.data}."
        write_report(config, lines, "finetune", title, "validation_accuracy", len(dataset.classes))

    start = time.perf_counter()
    lines = train(config, accelerator, model, batches, forward, evaluate, report, on_log, select="validation_accuracy")
    if lines and lines[-1]["step"] == config.steps:
        seconds = None if config.resume else round(time.perf_counter() - start, 1)
        counts = {"training_images": len(keep), "validation_images": len(aside)}
        write_result(config, accelerator, counts | {"seconds": seconds})
    return config.folder


def search_learning_rate(config: FinetuneConfig, learning_rates: Sequence[float]) -> Path:
    """Fine-tune once with each learning rate, none of them reading the test images, and then test the one whose
    validation accuracy is best (if `config.test`). Gives the folder of that run, runs/NAME-RATE.

    Raises:
        SelfieLiteError: as `finetune`; or if a run was stopped.
    """
    if len(set(learning_rates)) < 2:
        raise SelfieLiteError(f"a search takes two learning rates or more, but got {list(learning_rates)}.")
    tried = {}
    for rate in learning_rates:
        name = f"{config.name}-{rate:g}"
        one = config.updated(name=name, learning_rate=float(rate), test=False, results="")
        lines = read_metrics(finetune(one))
        if lines[-1]["step"] != config.steps:
            raise SelfieLiteError(f"the run {name} was stopped; without it there is nothing to choose from.")
        tried[rate] = best_line(lines, "validation_accuracy")["validation_accuracy"]
    rate = max(tried, key=tried.get)
    folder = config.folder.with_name(f"{config.name}-{rate:g}")
    result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    best = FinetuneConfig.from_dict(result["config"] | {"test": config.test, "results": config.results})
    more = {name: result[name] for name in ("training_images", "validation_images")}
    more["searched_learning_rates"] = {f"{rate:g}": accuracy for rate, accuracy in tried.items()}
    write_result(best, make_accelerator(best), more)
    return folder


def write_result(config: FinetuneConfig, accelerator: Accelerator, more: dict) -> None:
    """What a finished run has come to, in runs/NAME/result.json; if `config.test`, with the accuracy on the test
    images, read with the weights that the run has kept."""
    chosen = best_line(read_metrics(config.folder), "validation_accuracy")
    result = {"validation_accuracy": chosen["validation_accuracy"], "chosen_step": chosen["step"]}
    words = f"validation accuracy {chosen['validation_accuracy']:.3f} at step {chosen['step']}, the best"
    if config.test:
        dataset = load_dataset(config.data, "test", config.image_size)
        model = load_classifier(config.folder).to(accelerator.device, memory_format=torch.channels_last)
        everything = torch.arange(len(dataset))
        _, accuracy = evaluate_classifier(model, dataset, everything, config.batch_size, accelerator)
        result = {"test_accuracy": accuracy, "test_images": len(dataset)} | result
        words += f"; with those weights test accuracy {accuracy:.3f} on {len(dataset):,} images"
    if not accelerator.is_main_process:
        return
    result |= more | {"config": config.to_dict() | {"resume": "", "results": ""}, "environment": environment()}
    if config.pretrained != SCRATCH:
        result["pretraining"] = read_source(config.pretrained)[1]
    (config.folder / "result.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    with open(config.folder / "README.md", "a", encoding="utf-8") as file:
        file.write(f"\nResult (`result.json`): {words}.\n")
    if config.results:
        Path(config.results).parent.mkdir(parents=True, exist_ok=True)
        with open(config.results, "a", encoding="utf-8") as file:
            file.write(json.dumps(result) + "\n")
    accelerator.print(f"{config.folder}: {words}.")


def evaluate_classifier(
    model: ResNet, dataset: ImageDataset | ImageFiles, indices: Tensor, batch_size: int, accelerator: Accelerator
) -> tuple[float, float]:
    """Loss and accuracy on the images at `indices`, as they are."""

    def measure(part):
        images, labels = (x.to(accelerator.device) for x in dataset.batch(indices[part]))
        logits = model(normalize(images))
        return F.cross_entropy(logits, labels), (logits.argmax(dim=1) == labels).float().mean()

    return evaluate_parts(model, len(indices), batch_size, accelerator, measure)


def load_classifier(name_or_folder: str | Path) -> ResNet:
    """The classifier of a fine-tuning run, with the weights it kept, in evaluation mode, float32, on the CPU.

    Takes normalised images (`augment.normalize`), gives logits. `name_or_folder` is as in `load_pretrained`.

    Raises:
        CheckpointError: if there is none, or it is damaged, or the run did not fine-tune.
    """
    weights, description = read_checkpoint(name_or_folder)
    config = description["config"]
    if "labels" not in config:
        raise CheckpointError(f"{name_or_folder} was pretrained, not fine-tuned: it has no classifier.")
    model = make_resnet(config["arch"], config["stem"], len(weights["fc.bias"]))
    model.load_state_dict(weights)
    return model.eval()


def require_same_classes(train: ImageDataset | ImageFiles, test: ImageDataset | ImageFiles) -> None:
    if train.classes != test.classes:
        raise SelfieLiteError(
            f"{train.name} has {len(train.classes)} classes to train on and {len(test.classes)} others to test on."
        )
