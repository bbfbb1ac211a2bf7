"""What features are worth: nearest-neighbour and linear probes on a frozen P, and how many dimensions features
use."""

import copy
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn

from selfie_lite.augment import normalize
from selfie_lite.data.datasets import ImageDataset, ImageFiles, load_dataset
from selfie_lite.evaluation.results import fraction_table, read_results
from selfie_lite.machine import best_device, environment
from selfie_lite.patch_network import PatchNetwork
from selfie_lite.patches import PatchGrid, patchify
from selfie_lite.training.batches import read_batches
from selfie_lite.training.config import require_within
from selfie_lite.training.device import has_native_bf16
from selfie_lite.training.features import knn_accuracy
from selfie_lite.training.labels import labelled_subset, require_same_classes
from selfie_lite.training.randomness import seed_of
from selfie_lite.training.weights import load_patch_network

STRENGTHS = [10.0**power for power in range(-6, 3)]  # of the linear probe (scikit-learn's C), the best is chosen
__all__ = [
    "STRENGTHS",
    "effective_rank",
    "embed",
    "evaluate_features",
    "fraction_table",
    "knn_accuracy",
    "linear_probe",
    "read_results",
    "recalibrated",
]
READERS = min(os.cpu_count() or 1, 8)  # processes that read image files
PIXELS = 32  # raw pixels of larger images are averaged down to so many a side


def evaluate_features(
    sources: Sequence[str | Path],
    data: str | Path = "sample",
    labels: float = 1.0,
    seed: int = 0,
    image_size: int | None = None,
) -> dict:
    """Test accuracy of two probes on frozen features of whole images: of each P, of the same P with fresh weights, and
    of raw pixels, the floor.

    Args:
        sources: what `load_patch_network` takes.
        labels, seed: which part of the training labels the probes may use, see `labelled_subset`.
        image_size: of images read from a folder.

    Returns:
        {"rows": [{"features": name, "dim": D, "knn": accuracy, "linear": accuracy, "strength": C, "rank":
        effective dimension}], and what they were measured on}.

    Raises:
        SelfieLiteError: for weights or data that cannot be found.
    """
    require_within("labels", labels, "(0, 1]")
    networks = {str(source): load_patch_network(source) for source in sources}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of(seed, "first weights"))
        for arch, stem in dict.fromkeys((p.arch, p.stem) for p in networks.values()):
            name = f"fresh {arch}" if stem == "small" else f"fresh {arch}, {stem} stem"
            networks[name] = PatchNetwork(arch, stem).eval()
    train, test = (load_dataset(data, split, image_size) for split in ("train", "test"))
    require_same_classes(train, test)
    keep, choose = labelled_subset(train.labels, labels, seed=seed, classes=train.classes)
    both, everything = torch.cat([keep, choose]), torch.arange(len(test))
    y, test_y = train.labels[both].numpy(), test.labels.numpy()
    rows = []
    for name, network in {**networks, "raw pixels": None}.items():
        x, test_x = embed(network, train, both), embed(network, test, everything)
        linear, strength = linear_probe(x, y, test_x, test_y, len(keep))
        knn = knn_accuracy(x, y, test_x, test_y)
        row = {"features": name, "dim": x.shape[1], "knn": knn, "linear": linear, "strength": strength}
        rows.append(row | {"rank": round(effective_rank(test_x), 2)})
    counts = {"labels": labels, "training_images": len(both), "test_images": len(test), "classes": len(train.classes)}
    return {"data": str(data), "seed": seed} | counts | {"rows": rows, "environment": environment()}


@torch.no_grad()
def embed(
    network: PatchNetwork | None,
    dataset: ImageDataset | ImageFiles,
    indices: Tensor,
    batch_size: int = 250,
    grid: PatchGrid | None = None,
) -> np.ndarray:
    """Features of images: what P's third block gives, averaged over the whole image; or (network None) raw pixels.

    Args:
        grid: P sees the image's patches one by one, as in pretraining, and their features are averaged.

    Returns:
        (n, D) float32.
    """
    device, features = best_device(), []
    if network is not None:
        network = network.to(device).to(memory_format=torch.channels_last)
    for images, _ in read_batches(dataset, zip(indices.split(batch_size)), READERS, device):
        images = normalize(images)
        if network is None:
            small = F.adaptive_avg_pool2d(images, PIXELS) if images.shape[-1] > PIXELS else images
            features.append(small.flatten(1).cpu())
            continue
        with torch.autocast(device.type, torch.bfloat16, enabled=has_native_bf16(device)):
            maps = network.feature_maps(images) if grid is None else network(patchify(images, grid)).mT[..., None]
        features.append(maps.float().mean(dim=(2, 3)).cpu())  # maps: (b, D, h, w), or (b, D, N, 1)
    return torch.cat(features).numpy()


@torch.no_grad()
def recalibrated(network: PatchNetwork, dataset: ImageDataset | ImageFiles, indices: Tensor) -> PatchNetwork:
    """A copy of P whose batch normalisation has the statistics of whole images: P learnt on patches, whose small maps
    have more of their values near a zero-padded border."""
    network = copy.deepcopy(network).to(best_device()).train()
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.reset_running_stats()
            layer.momentum = None  # the plain mean over all batches
    for images, _ in read_batches(dataset, zip(indices.split(250)), READERS, best_device()):
        network.feature_maps(normalize(images))
    return network.eval()


def linear_probe(x, y, test_x, test_y, count: int) -> tuple[float, float]:
    """Logistic regression on standardised features: accuracy on the test images, and the strength chosen.

    Args:
        x, y, test_x, test_y: as in `knn_accuracy`.
        count: the first `count` of x are trained on to choose the strength (C) by the accuracy on the others; then all.
    """

    def fit(strength, x, y):
        return make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=2000, tol=1e-3)).fit(x, y)

    chosen = max(STRENGTHS, key=lambda c: fit(c, x[:count], y[:count]).score(x[count:], y[count:]))
    return float(fit(chosen, x, y).score(test_x, test_y)), chosen


def effective_rank(x: np.ndarray) -> float:
    """How many dimensions the features use: exp of the entropy of their singular values, taken as shares of their sum
    (Roy and Vetterli 2007; RankMe, arXiv 2210.02885). Between 1 and D: 1 if all features lie on one line, D if all
    directions matter alike.

    Args:
        x: (n, D) float features, n larger than D for a rank that is not bounded by n.
    """
    singular = np.linalg.svd(x - x.mean(axis=0), compute_uv=False)
    shares = singular[singular > 0] / singular.sum() if singular.sum() > 0 else np.ones(1)
    return float(np.exp(-(shares * np.log(shares)).sum()))
