"""One vector a location, or row and column vectors, 7 + 7 of them in place of 49? Trained together with P, and learnt
by themselves on a P that stays as it is. One line a seed and form is appended to a file as it is finished; lines that
are there are not made again."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from selfie_lite.augment import normalize
from selfie_lite.benchmarks.ladder import going_on, lines_of
from selfie_lite.data.datasets import ImageDataset, ImageFiles, load_dataset
from selfie_lite.errors import SelfieLiteError
from selfie_lite.files import read_json_lines
from selfie_lite.loss import diagonal_targets, masked_patch_logits
from selfie_lite.machine import best_device, environment
from selfie_lite.patches import PatchGrid, patchify, sample_masks
from selfie_lite.positions import PositionalEmbedding
from selfie_lite.selfie import take
from selfie_lite.training.batches import read_batches
from selfie_lite.training.pretrain import PRESETS, pretrain, split_held_out
from selfie_lite.training.randomness import generator_of, seed_of
from selfie_lite.training.results import append_line
from selfie_lite.training.weights import load_patch_network, load_pretrained

FORMS = {"rows and columns": True, "one a location": False}
LINE = {"kind": str, "vectors": str, "seed": int, "accuracy": float}


def compare_vectors(
    file: Path, data: str, source: str, seeds: Sequence[int], steps: int, batch_size: int, images: int,
    say: Callable[[str], None],
) -> list[dict]:  # fmt: skip
    """All lines of `file`, after what is missing was measured: without a `source`, pretraining runs of the preset
    laptop49; with one, vectors learnt on the features that its P gives of so many `images`."""
    features, grid = torch.empty(0), PatchGrid(56, 8)
    for seed in seeds:
        for form, factorized in FORMS.items():
            cell = {"kind": "frozen" if source else "pretrain", "vectors": form, "seed": seed, "data": data}
            cell |= {"steps": steps, "batch_size": batch_size} | (
                {"source": source, "images": images} if source else {}
            )
            if any(cell.items() <= line.items() for line in _lines(file)):
                continue
            start, cpu = time.perf_counter(), time.process_time()
            if source and not len(features):
                features, grid = frozen_features(source, load_dataset(data, "train"), images)
            if source:
                found = learn_vectors(features, grid, factorized, seed, steps, batch_size)
            else:
                found = _pretrain(cell, factorized)
            took = {"seconds": time.perf_counter() - start, "cpu_seconds": time.process_time() - cpu}
            line = cell | found | {name: round(value, 1) for name, value in took.items()}
            line |= {"threads": torch.get_num_threads(), "environment": environment()}
            append_line(file, line)
            say(f"{cell['kind']}, {form}, seed {seed}: {found['accuracy']:.3f}, {took['seconds']:.0f} s")
    return _lines(file)


def _lines(file: Path) -> list[dict]:
    return read_json_lines(file, "a comparison of location vectors", LINE) if file.exists() else []


def _pretrain(cell: dict, factorized: bool) -> dict:
    """A run of the preset laptop49; a run of that name that was stopped goes on."""
    config = PRESETS["laptop49"].updated(
        name=f"vectors-{'7+7' if factorized else '49'}-{cell['seed']}", data=cell["data"], seed=cell["seed"],
        steps=cell["steps"], batch_size=cell["batch_size"], factorized="yes" if factorized else "no", workers=1,
        warmup_steps=cell["steps"] // 10, eval_every=max(1, cell["steps"] // 2), log_every=4,
        save_every=max(1, cell["steps"] // 8),
    )  # fmt: skip
    lines = lines_of(pretrain(going_on(config)), config.steps)
    vectors = config.grid.side * 2 if factorized else config.grid.count
    found = {"accuracy": lines[-1]["held_out_accuracy"], "chance": config.chance, "number_of_vectors": vectors}
    return found | {"metrics": lines, "config": config.to_dict()}


@torch.no_grad()
def frozen_features(source: str, dataset: ImageDataset | ImageFiles, images: int) -> tuple[Tensor, PatchGrid]:
    """P's features of every patch of some images, (n, N, D) float32, and the grid; at the size that P was trained at,
    or, of a P of 16 patches, at 7×7 patches of the same size."""
    grid = load_pretrained(source).grid
    if grid.side != 7:
        grid = PatchGrid(7 * grid.patch_size, grid.patch_size)
    some = torch.randperm(len(dataset), generator=generator_of("vectors", "images"))[:images]
    if isinstance(dataset, ImageFiles):
        dataset.image_size = grid.image_size
    elif dataset.image_size != grid.image_size:
        raise SelfieLiteError(f"{source} takes images of {grid.image_size} pixels here, {dataset.name} has others.")
    network = load_patch_network(source).to(best_device())
    batches = read_batches(dataset, zip(some.split(64)), 1, best_device())
    return torch.cat([network(patchify(normalize(x), grid)).float().cpu() for x, _ in batches]), grid


def learn_vectors(
    features: Tensor, grid: PatchGrid, factorized: bool, seed: int, steps: int = 300, batch_size: int = 64
) -> dict:
    """Learn e by gradient descent so that e_j · h_j is the largest of the hidden patches' scores (the form "location"),
    on 4/5 of the images; the accuracy is that on the others.

    features: (n, N, D) float32. Returns {"accuracy", "held_out_loss", "chance", "number_of_vectors"}.
    """
    keep, aside = split_held_out(len(features), len(features) // 5)
    masked_count = grid.count // 4
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of(seed, "vectors"))
        positions = PositionalEmbedding(grid, features.shape[-1], factorized)
    optimizer = torch.optim.AdamW(positions.parameters(), lr=1e-2, weight_decay=0.0)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)

    def score(which: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        _, masked = sample_masks(len(which), grid, masked_count, generator)
        logits = masked_patch_logits(positions()[masked], take(features[which], masked))  # (B, M, M)
        targets = diagonal_targets(logits)
        flat = logits.flatten(0, 1)
        return F.cross_entropy(flat, targets), (flat.argmax(dim=1) == targets).float().mean()

    for step in range(steps):
        generator = generator_of(seed, "vectors", step)
        loss, _ = score(keep[torch.randint(len(keep), (batch_size,), generator=generator)], generator)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step()
    with torch.no_grad():
        held_out, accuracy = score(aside, generator_of("vectors", "evaluation"))
    count = sum(len(vectors) for vectors in positions.parameters())
    return {"accuracy": round(float(accuracy), 4), "held_out_loss": round(float(held_out), 4),
            "chance": 1 / masked_count, "number_of_vectors": count}  # fmt: skip
