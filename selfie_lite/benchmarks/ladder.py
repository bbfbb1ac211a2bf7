"""The ladder of notebook 08: what does each part of Selfie buy? One change at a time against the paper's form, with
equal steps, equal images and the same first weights, the learning rate searched for each arm, and several seeds. What
is measured is appended to a file, one line a cell, as it is finished; cells that are there are not run again, and
several processes may work on one file."""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from selfie_lite.benchmarks.baselines import BASELINES, pretrain_baseline
from selfie_lite.data.datasets import ImageDataset, load_dataset
from selfie_lite.errors import SelfieLiteError, require_choice
from selfie_lite.evaluation.ladder import read_ladder
from selfie_lite.evaluation.probes import effective_rank, embed, knn_accuracy, linear_probe, recalibrated
from selfie_lite.evaluation.puzzle import puzzle_accuracy
from selfie_lite.files import locked
from selfie_lite.machine import environment
from selfie_lite.patch_network import PatchNetwork
from selfie_lite.patches import PatchGrid, sample_masks
from selfie_lite.selfie import Selfie
from selfie_lite.training.classifier import evaluate_classifier, load_classifier
from selfie_lite.training.config import RUNS
from selfie_lite.training.device import make_accelerator
from selfie_lite.training.finetune import FINETUNE_PRESETS, SCRATCH, finetune
from selfie_lite.training.pretrain import PRESETS, PretrainConfig, make_model, pretrain, split_held_out
from selfie_lite.training.randomness import generator_of
from selfie_lite.training.results import append_line
from selfie_lite.training.run import read_metrics
from selfie_lite.training.weights import load_patch_network, load_pretrained

ARMS: dict[str, dict] = {  # what differs from the baseline, which is the first
    "additive": {},
    "location": {"queries": "location"},
    "mask_token": {"queries": "mask_token"},
    "no encoder positions": {"encoder_positions": False},
    "mask_token, gap 2": {"queries": "mask_token", "gap": 2},
    "location, gap 2": {"queries": "location", "gap": 2},
    "mlp": {"queries": "mlp"},
    "multiplicative": {"queries": "multiplicative"},
    "2 hidden": {"num_masked": 2},
    "8 hidden": {"num_masked": 8},
    "12 hidden": {"num_masked": 12},
    "padding 4": {"padding": 4},
    "group normalisation": {"norm": "group"},
    "untied": {"tied": False},
    "mean pooling": {"pooling": "mean"},
    "max pooling": {"pooling": "max"},
}
UNTRAINED, PIXELS = "untrained", "raw pixels"  # nothing to pretrain
BUSY = "another process is at this cell"
TRAINED = (*ARMS, *BASELINES)


@dataclass(frozen=True)
class Budget:
    """What every arm gets."""

    preset: str = "laptop"  # network and optimiser
    data: str = "cifar10"
    steps: int = 750
    batch_size: int = 64
    search_steps: int = 250  # for each learning rate
    learning_rates: tuple[float, ...] = (3e-4, 1e-3, 3e-3)
    probe_images: int = 3000  # of the training images, with labels
    held_out: int = 1000  # of the training images: the learning rate is chosen on them
    test_images: int = 2000
    puzzles: int = 1000  # of the test images
    finetune_labels: tuple[int, ...] = (200, 800)
    finetune_steps: int = 100


def run_ladder(
    file: Path, arms: Sequence[str], seeds: Sequence[int], budget: Budget, kinds: Sequence[str] = ("pretrain",),
    say: Callable[[str], None] = print, base: PretrainConfig | None = None,
) -> None:  # fmt: skip
    """Run every cell (arm, seed) that `file` does not have yet, seed by seed; then, if `kinds` has "finetune", the
    fine-tuning of each.

    Args:
        base: network and optimiser, where those of no preset are wanted; `budget.preset` is then what they are called.

    Raises:
        SelfieLiteError: for an arm that is none; what pretraining and fine-tuning raise.
        KeyboardInterrupt: if a run was stopped; its cell goes on from there the next time.
    """
    for arm in arms:
        require_choice("arm", arm, (*TRAINED, UNTRAINED, PIXELS))
    ladder = Ladder(file, budget, base)
    cells = [("search", arm, 0) for arm in arms if arm in TRAINED]
    cells += [("pretrain", arm, seed) for seed in seeds for arm in arms if arm != PIXELS or seed == seeds[0]]
    if "finetune" in kinds:
        cells += [("finetune", arm, seed) for seed in seeds for arm in arms if arm != PIXELS]
    RUNS.mkdir(exist_ok=True)
    while left := [cell for cell in cells if not ladder.find(*cell)]:
        if not any(ladder.try_cell(*cell, say) for cell in left):
            time.sleep(5)  # the rest is in the hands of other processes, or waits for theirs


def going_on(config: Any) -> Any:
    """The settings of a run that begins, or goes on if it was begun."""
    return config.updated(resume="newest") if (config.folder / "config.json").is_file() else config


def lines_of(folder: Path, steps: int) -> list[dict]:
    """The metrics of a run that has come to its end.

    Raises:
        KeyboardInterrupt: if it was stopped before; nothing may be said of what it left.
    """
    lines = read_metrics(folder)
    if not lines or lines[-1]["step"] != steps:
        raise KeyboardInterrupt
    return lines


class Ladder:
    """Cells of one budget, and the file that they are written to."""

    def __init__(self, file: Path, budget: Budget, base: PretrainConfig | None = None):
        self.file, self.budget, self.base = file, budget, base or PRESETS[budget.preset]
        self.said_budget = json.loads(json.dumps(asdict(budget)))
        train, test = (load_dataset(budget.data, split) for split in ("train", "test"))
        if not isinstance(train, ImageDataset) or not isinstance(test, ImageDataset):
            raise SelfieLiteError(f"the ladder is for small images kept as arrays; {budget.data} is read from files.")
        self.train, self.test = train, test
        keep, self.held_out = split_held_out(len(self.train), budget.held_out)
        some = torch.randperm(len(keep), generator=generator_of("ladder", "probe"))  # imports may be sorted by class
        self.probe = keep[some[: budget.probe_images]]
        some = torch.randperm(len(self.test), generator=generator_of("ladder", "test"))
        self.tested = some[: budget.test_images]

    def find(self, kind: str, arm: str, seed: int) -> dict | None:
        """The line of a cell."""
        of_cell = {"kind": kind, "arm": arm, "seed": seed, "budget": self.said_budget}
        return next((line for line in read_ladder(self.file) if of_cell.items() <= line.items()), None)

    def try_cell(self, kind: str, arm: str, seed: int, say: Callable[[str], None]) -> bool:
        """Run a cell and write its line; False if another process is at it, or what it needs is not there yet."""
        needed = {"pretrain": ("search", arm, 0), "finetune": ("pretrain", arm, seed)}.get(kind)
        if needed and arm in TRAINED and not self.find(*needed):
            return False
        name = f"ladder-{kind}-{arm}-{seed}".replace(",", "").replace(" ", "-")
        try:
            with locked(RUNS, BUSY, f".{name}.lock"):
                if self.find(kind, arm, seed):
                    return True
                start, cpu = time.perf_counter(), time.process_time()
                found = getattr(self, kind)(arm, seed, name)
                took = {"seconds": time.perf_counter() - start, "cpu_seconds": time.process_time() - cpu}
                line = {"kind": kind, "arm": arm, "seed": seed} | found | {k: round(v, 1) for k, v in took.items()}
                line |= {"budget": self.said_budget, "threads": torch.get_num_threads(), "environment": environment()}
                append_line(self.file, line)
        except SelfieLiteError as error:
            if str(error) == BUSY:
                return False
            raise
        say(f"{kind}, {arm}, seed {seed}: {took['seconds']:.0f} s")
        return True

    def config(self, arm: str, seed: int, name: str, learning_rate: float, steps: int) -> PretrainConfig:
        budget = self.budget
        config = self.base.updated(
            name=name, data=budget.data, seed=seed, steps=steps, batch_size=budget.batch_size,
            learning_rate=learning_rate, warmup_steps=steps // 10, held_out=budget.held_out, log_every=25,
            eval_every=max(1, steps // 3), save_every=max(1, steps // 6), keep=1, **ARMS.get(arm, {}),
        )  # fmt: skip
        return going_on(config)

    def search(self, arm: str, seed: int, name: str) -> dict:
        """A short run with each learning rate; a linear probe on held-out training images says which is best."""
        tried = []
        for rate in self.budget.learning_rates:
            config = self.config(arm, seed, f"{name}-{rate:g}", rate, self.budget.search_steps)
            last = lines_of(self._pretrained(arm, config), config.steps)[-1]
            worth = self._worth(load_patch_network(config.folder), None, self.train, self.held_out)
            tried.append({"learning_rate": rate, "linear": worth["linear"]})
            if "held_out_accuracy" in last:
                tried[-1]["puzzle"] = round(last["held_out_accuracy"], 4)
        return {"learning_rate": max(tried, key=lambda row: row["linear"])["learning_rate"], "tried": tried}

    def pretrain(self, arm: str, seed: int, name: str) -> dict:
        """Pretrain, then what the features and the puzzle are worth."""
        if arm == PIXELS:
            return {"whole": self._worth(None)}
        found: dict[str, Any] = {}
        config = self.base.updated(seed=seed)
        if arm == UNTRAINED:
            network = make_model(config).eval().patch_network
        else:
            searched = self.find("search", arm, 0)
            assert searched is not None  # try_cell has looked
            config = self.config(arm, seed, name, searched["learning_rate"], self.budget.steps)
            found["metrics"] = lines_of(self._pretrained(arm, config), config.steps)
            found["config"] = config.updated(resume="").to_dict()
            network = load_patch_network(config.folder)
        if arm in ARMS:
            found |= {"chance": config.chance, "puzzle": self._puzzle(load_pretrained(config.folder))}
        found["whole"] = self._worth(network)
        found["patches"] = self._worth(network, config.grid)
        if config.norm == "batch":
            found["recalibrated"] = self._worth(recalibrated(network, self.train, self.probe[:1000]))
        return found

    def finetune(self, arm: str, seed: int, name: str) -> dict:
        """Test accuracy at the last step of fine-tuning, by number of labels; for "untrained" that is from scratch."""
        accuracy, labels, budget = {}, len(self.train), self.budget
        source = SCRATCH if arm == UNTRAINED else str(RUNS / name.replace("-finetune-", "-pretrain-"))
        for count in budget.finetune_labels:
            config = FINETUNE_PRESETS[budget.preset].updated(
                name=f"{name}-{count}", data=budget.data, pretrained=source, labels=count / labels, seed=seed,
                steps=budget.finetune_steps, warmup_steps=budget.finetune_steps // 10, eval_every=0, padding=0,
                save_every=budget.finetune_steps, keep=1, test=False,
            )  # fmt: skip
            folder = finetune(going_on(config))
            lines_of(folder, config.steps)
            model = load_classifier(folder)
            accelerator = make_accelerator(config)
            model = model.to(accelerator.device, memory_format=torch.channels_last)
            accuracy[str(count)] = evaluate_classifier(model, self.test, self.tested, 250, accelerator)[1]
        return {"accuracy": {count: round(value, 4) for count, value in accuracy.items()}}

    def _pretrained(self, arm: str, config: PretrainConfig) -> Path:
        return pretrain_baseline(arm, config) if arm in BASELINES else pretrain(config)

    def _puzzle(self, model: Selfie) -> dict:
        images = self.test.batch(self.tested[: self.budget.puzzles])[0]
        masks = sample_masks(len(images), model.grid, model.num_masked, generator_of("ladder", "puzzles"))
        return puzzle_accuracy(model, images, *masks)

    def _worth(
        self, network: PatchNetwork | None, grid: PatchGrid | None = None, data: ImageDataset | None = None,
        indices: torch.Tensor | None = None,
    ) -> dict:  # fmt: skip
        """Probes learnt on the probe's images and read on the test images, or on those at `indices` of `data`."""
        data, indices = data or self.test, self.tested if indices is None else indices
        y, test_y = self.train.labels[self.probe].numpy(), data.labels[indices].numpy()
        x, test_x = embed(network, self.train, self.probe, 250, grid), embed(network, data, indices, 250, grid)
        linear, strength = linear_probe(x, y, test_x, test_y, len(y) * 4 // 5)
        worth = {"linear": linear, "knn": knn_accuracy(x, y, test_x, test_y), "rank": effective_rank(test_x)}
        return {name: round(value, 4) for name, value in worth.items()} | {"strength": strength}
