"""Which labels of a data set a fine-tuning run, or a probe, may use."""

from collections.abc import Sequence

import torch
from torch import Tensor

from selfie_lite.data.datasets import ImageDataset, ImageFiles
from selfie_lite.errors import SelfieLiteError
from selfie_lite.training.config import require_within
from selfie_lite.training.randomness import generator_of


def labelled_subset(
    labels: Tensor | Sequence[int],
    fraction: float,
    validation: float = 0.1,
    seed: int = 0,
    classes: Sequence[str] | None = None,
) -> tuple[Tensor, Tensor]:
    """Which images' labels may be used: as many of each class as its share, fixed by the seed, and nested, so that a
    smaller fraction is part of a larger one.

    Args:
        labels: (n,) integers, of the training images.
        fraction: of the labels, above 0 and up to 1.
        validation: part of those, again of each class, to choose settings on, above 0 and up to 0.5; at least one image
            of each class.
        classes: their names, for errors. Default: the numbers.

    Returns:
        Indices to train on, and to choose on, each (…,) int64 in increasing order. Both are nested.

    Raises:
        SelfieLiteError: for one class only, or a class with fewer than two images; for labels and parts that are none.
    """
    labels = _integers(labels)
    require_within("labels", fraction, "(0, 1]")
    require_within("validation", validation, "(0, 0.5]")
    found, counts = (x.tolist() for x in labels.unique(return_counts=True))
    if len(found) < 2:
        raise SelfieLiteError("fine-tuning needs images of two classes or more: FOLDER/train/CLASS/*.")
    names = {label: classes[label] if classes and 0 <= label < len(classes) else str(label) for label in found}
    if few := {names[label]: n for label, n in zip(found, counts, strict=True) if round(fraction * n) < 2}:
        raise SelfieLiteError(_too_few(few, fraction))
    train, choose = [], []
    for label in found:
        members = (labels == label).nonzero()[:, 0]
        count = round(fraction * len(members))
        order = members[torch.randperm(len(members), generator=generator_of(seed, "labels", label))][:count]
        share = torch.arange(count + 1, dtype=torch.float64) * validation
        aside = (share - 1e-9).ceil().diff() > 0  # the first of every 1 / validation, so that the parts are nested
        choose.append(order[aside])
        train.append(order[~aside])
    return torch.cat(train).sort().values, torch.cat(choose).sort().values


def require_same_classes(train: ImageDataset | ImageFiles, test: ImageDataset | ImageFiles) -> None:
    """Raise SelfieLiteError if the labels of the two parts do not mean the same."""
    if train.classes != test.classes:
        raise SelfieLiteError(
            f"{train.name} has {len(train.classes)} classes to train on and {len(test.classes)} others to test on."
        )


def _integers(labels: Tensor | Sequence[int]) -> Tensor:
    try:
        labels = torch.as_tensor(labels)
    except (TypeError, ValueError, RuntimeError):
        labels = torch.empty(0)
    if labels.ndim != 1 or labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise SelfieLiteError("labels are one whole number an image, a tensor of shape (n,), int64: dataset.labels.")
    return labels


def _too_few(few: dict[str, int], fraction: float) -> str:
    """The sentence for classes (name: images) that have too few labels."""
    name, count = min(few.items(), key=lambda item: item[1])
    others = [other for other in few if other != name]
    more = f" So have {len(others)} more: {', '.join(others[:5])}{', …' * (len(others) > 5)}." if others else ""
    what, way_out = f"class {name} has {count} image", "Bring more images of it, or move its folder out of the way."
    if count > 1:
        what = f"{fraction:g} of the {count} labels of class {name} is {round(fraction * count)}"
        way_out = f"Use at least {2 / count:.2g}."
    return f"{what}: too few, one is needed to train on and one to choose on. {way_out}{more}"
