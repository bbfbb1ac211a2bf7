"""Finished pretraining runs side by side: the settings in which they differ, and what each reached."""

import json
import statistics
from collections.abc import Sequence
from pathlib import Path

from selfie_lite.errors import SelfieLiteError
from selfie_lite.training.config import RUNS
from selfie_lite.training.pretrain import PretrainConfig

NOT_COMPARED = {*PretrainConfig.FREE, "name", "eval_every"}  # they change what is written, not what is learnt


def compare_runs(names_or_folders: Sequence[str | Path]) -> dict:
    """Held-out pretext accuracy of finished runs, best first; runs that differ in nothing but their seed share a row.

    Returns:
        {"same": settings that all runs share, "chance": 1/M if they share it, "rows": [{"changed": settings of this
        row, "median_accuracy": of its seeds, "accuracy": {seed: held-out accuracy}}], "environment": [one each]}.

    Raises:
        SelfieLiteError: for fewer than two runs, or one that has not reached its last step.
    """
    if len(names_or_folders) < 2:
        raise SelfieLiteError(f"comparing takes two runs or more, but {len(names_or_folders)} is named.")
    runs = [_read(Path(name)) for name in names_or_folders]
    settings = [{k: v for k, v in config.items() if k not in NOT_COMPARED} for config, _, _ in runs]
    same = {k: v for k, v in settings[0].items() if all(other[k] == v for other in settings)}
    rows: dict[str, dict] = {}
    for setting, (_, accuracy, _) in zip(settings, runs, strict=True):
        changed = {k: v for k, v in setting.items() if k not in same and k != "seed"}
        row = rows.setdefault(json.dumps(changed), {"changed": changed, "median_accuracy": 0.0, "accuracy": {}})
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


def _read(path: Path) -> tuple[dict, float, dict]:
    """config, held-out accuracy at the last step, and environment of a run."""
    folder = path if (path / "config.json").is_file() else RUNS / path
    try:
        settings = json.loads((folder / "config.json").read_text())
        lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        environment = json.loads((folder / "environment.json").read_text())
    except (OSError, ValueError):
        raise SelfieLiteError(f"there is no run in {folder}.") from None
    if "labels" in settings:
        raise SelfieLiteError(f"{folder} is a fine-tuning run; its result is in {folder / 'result.json'}.")
    config = PretrainConfig.from_dict(settings)
    reached = [line for line in lines if "held_out_accuracy" in line]
    if not reached or reached[-1]["step"] != config.steps:
        raise SelfieLiteError(f"the run {folder} has not reached its last step, {config.steps}.")
    return config.to_dict(), reached[-1]["held_out_accuracy"], environment
