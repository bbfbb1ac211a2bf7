"""What runs left, read in one way: pretraining runs side by side, and tables of fine-tuning results."""

import json
import statistics
from collections.abc import Sequence
from pathlib import Path

from selfie_lite.errors import SelfieLiteError
from selfie_lite.files import read_json, read_json_lines
from selfie_lite.training.config import RUNS
from selfie_lite.training.finetune import SCRATCH, FinetuneConfig
from selfie_lite.training.pretrain import PretrainConfig
from selfie_lite.training.results import RESULT
from selfie_lite.training.run import read_metrics

NOT_COMPARED = {*PretrainConfig.FREE, "name", "eval_every"}  # they change what is written, not what is learnt
FREE = FinetuneConfig.FREE | {"name", "pretrained", "labels", "seed", "eval_every"}  # rows of one table may differ so
COUNTED = {"training_images": int, "validation_images": int}


def compare_runs(names_or_folders: Sequence[str | Path]) -> dict:
    """Held-out pretext accuracy of finished runs, best first; runs that differ in nothing but their seed share a row.

    Returns:
        {"same": settings that all runs share, "chance": 1/M if they share it, "rows": [{"changed": settings of this
        row, "median_accuracy": of its seeds, "accuracy": {seed: held-out accuracy}}], "environment": [one each]}.

    Raises:
        SelfieLiteError: for fewer than two runs, one named twice, or one that has not reached its last step.
    """
    if len(names_or_folders) < 2:
        raise SelfieLiteError(f"comparing takes two runs or more, but {len(names_or_folders)} is named.")
    runs = [_read_run(Path(name)) for name in names_or_folders]
    settings = [{k: v for k, v in config.items() if k not in NOT_COMPARED} for config, _, _ in runs]
    same = {k: v for k, v in settings[0].items() if all(other[k] == v for other in settings)}
    rows: dict[str, dict] = {}
    for name, setting, (_, accuracy, _) in zip(names_or_folders, settings, runs, strict=True):
        changed = {k: v for k, v in setting.items() if k not in same and k != "seed"}
        row = rows.setdefault(json.dumps(changed), {"changed": changed, "median_accuracy": 0.0, "accuracy": {}})
        if str(setting["seed"]) in row["accuracy"]:
            raise SelfieLiteError(f"{name} has the settings and the seed of another of these runs: name one of them.")
        row["accuracy"][str(setting["seed"])] = round(accuracy, 4)
    for row in rows.values():
        row["median_accuracy"] = round(statistics.median(row["accuracy"].values()), 4)
    chances = {PretrainConfig.from_dict(setting).chance for setting in settings}
    environments = list({json.dumps(environment): environment for _, _, environment in runs}.values())
    return {
        "same": same,
        "chance": chances.pop() if len(chances) == 1 else None,
        "rows": sorted(rows.values(), key=lambda row: -row["median_accuracy"]),
        "environment": environments,
    }


def read_results(file: str | Path) -> list[dict]:
    """The results that fine-tuning runs appended to a .jsonl file; none if there is no such file yet.

    Raises:
        SelfieLiteError: naming the line that is no result.
    """
    file = Path(file)
    return read_json_lines(file, "the result of a fine-tuning run", RESULT) if file.exists() else []


def fraction_table(results: Sequence[dict], unequal_pretraining: bool = False) -> list[dict]:
    """Test accuracy by starting point and part of the labels, every single run, its mean and spread.

    Args:
        results: as in runs/NAME/result.json or `read_results`. A run repeated with the same settings counts once, the
            later.
        unequal_pretraining: whether P's may have been pretrained on unequal numbers of images (steps × batch size),
            because that is what the table is about.

    Returns:
        [{"arm": "scratch" or where P came from, "labels": fraction, "images": labels used, "runs": {seed: accuracy},
        "mean": …, "std": of the runs (n - 1), None for a single one, "gain": mean over that from scratch, or None}].

    Raises:
        SelfieLiteError: if runs differ in more than starting point, part of the labels and seed, and so should not
            stand in one table; or if one is no result, or has read no test images.
    """
    rows: dict[tuple, dict] = {}
    first: dict = {}
    for number, result in enumerate(results, 1):
        config = _checked(result, number)
        searched = result.get("searched_learning_rates")
        fixed = {key: value for key, value in config.items() if key not in FREE}
        fixed["learning_rate"] = f"best of {', '.join(searched)}" if searched else config["learning_rate"]
        first = first or fixed
        if differ := [f"{k} {first.get(k)} and {v}" for k, v in fixed.items() if first.get(k) != v]:
            raise SelfieLiteError(f"these runs are no fair comparison: {'; '.join(differ)}.")
        images = result["training_images"] + result["validation_images"]
        arm, labels = config["pretrained"], config["labels"]
        row = rows.setdefault((arm, labels), {"arm": arm, "labels": labels, "images": images, "runs": {}})
        row["runs"][config["seed"]] = result["test_accuracy"]
    if not unequal_pretraining:
        require_equal_pretraining(results)
    for row in rows.values():
        accuracies = list(row["runs"].values())
        row["mean"] = statistics.mean(accuracies)
        row["std"] = statistics.stdev(accuracies) if len(accuracies) > 1 else None
    for (_, labels), row in rows.items():
        baseline = rows.get((SCRATCH, labels))
        row["gain"] = row["mean"] - baseline["mean"] if baseline and row["arm"] != SCRATCH else None
    return sorted(rows.values(), key=lambda row: (row["labels"], row["arm"] != SCRATCH, row["arm"]))


def require_equal_pretraining(results: Sequence[dict]) -> None:
    """Raise SelfieLiteError if the P's of these results saw unequal numbers of images (steps × batch size) in
    pretraining. P's of which nothing is known, and those from scratch, are passed over."""
    seen: dict[int, str] = {}
    for result in results:
        known = result.get("pretraining", {})
        step, batch = known.get("step"), known.get("config", {}).get("batch_size")
        if isinstance(step, int) and isinstance(batch, int):
            seen.setdefault(step * batch, result["config"]["pretrained"])
    if len(seen) > 1:
        unequal = "; ".join(f"{arm} {images:,} images" for images, arm in sorted(seen.items()))
        raise SelfieLiteError(
            f"these runs are no fair comparison: their P's were pretrained for unequal budgets ({unequal}). If that is "
            "the point, say unequal_pretraining=True."
        )


def _checked(result: dict, number: int) -> dict:
    """The settings of a result, those that it does not have filled in with what was the default."""
    needs = {"config": dict} | COUNTED
    if not isinstance(result, dict) or any(not isinstance(result.get(name), kind) for name, kind in needs.items()):
        raise SelfieLiteError(f"row {number} is not the result of a fine-tuning run: it needs {', '.join(needs)}.")
    config = FinetuneConfig().to_dict() | result["config"]
    if not isinstance(result.get("test_accuracy"), int | float):
        raise SelfieLiteError(f"row {number}, the run {config['name']}, has no test accuracy: it read no test images.")
    return config


def _read_run(path: Path) -> tuple[dict, float, dict]:
    """config, held-out accuracy at the last step, and environment of a pretraining run."""
    folder = path if (path / "config.json").is_file() else RUNS / path
    if not (folder / "config.json").is_file():
        raise SelfieLiteError(f"there is no run in {folder}.")
    settings = read_json(folder / "config.json", "the settings of a run", {})
    if "labels" in settings:
        raise SelfieLiteError(f"{folder} is a fine-tuning run; its result is in {folder / 'result.json'}.")
    config = PretrainConfig.from_dict(settings)
    reached = [line for line in read_metrics(folder) if isinstance(line.get("held_out_accuracy"), int | float)]
    if not reached or reached[-1]["step"] != config.steps:
        raise SelfieLiteError(f"the run {folder} has not reached its last step, {config.steps}.")
    environment = read_json(folder / "environment.json", "what a run was measured on", {})
    return config.to_dict(), reached[-1]["held_out_accuracy"], environment
