"""Reading the ladder's lines (benchmarks/ladder.py writes them): each arm against a baseline, seed by seed."""

import statistics
from collections.abc import Sequence
from pathlib import Path

from scipy.stats import ttest_rel

from selfie_lite.errors import SelfieLiteError
from selfie_lite.files import read_json_lines

LINE = {"kind": str, "arm": str, "seed": int, "budget": dict}


def read_ladder(file: str | Path) -> list[dict]:
    """The lines of a ladder; none if there is no such file yet.

    Raises:
        SelfieLiteError: naming the line that is none.
    """
    file = Path(file)
    return read_json_lines(file, "a line of the ladder", LINE) if file.exists() else []


def by_arm(lines: Sequence[dict], kind: str, *keys: str) -> dict[str, dict[int, float]]:
    """One measured number of every arm and seed: `by_arm(lines, "pretrain", "whole", "linear")`; arms that do not have
    it are left out.

    Raises:
        SelfieLiteError: for lines of unequal budgets, which are no fair comparison.
    """
    chosen = [line for line in lines if line["kind"] == kind]
    if any(line["budget"] != chosen[0]["budget"] for line in chosen):
        raise SelfieLiteError(f"these {kind} lines have unequal budgets: compare those of one budget.")
    found: dict[str, dict[int, float]] = {}
    for line in chosen:
        value = line
        for key in keys:
            value = value.get(key, {})
        if isinstance(value, int | float):
            found.setdefault(line["arm"], {})[line["seed"]] = float(value)
    return found


def paired_differences(values: dict[str, dict[int, float]], baseline: str, level: float = 0.95) -> list[dict]:
    """Each arm minus the baseline on the same seeds, the largest mean first: [{"arm", "differences": {seed: …}, "mean",
    "low" and "high": Student's t interval of that level (SciPy's `ttest_rel`), None for a single seed, "df": its
    degrees of freedom}]. The intervals are those of single comparisons: of twenty arms that differ in nothing, one is
    expected to miss zero at 95 %.

    Raises:
        SelfieLiteError: if the baseline is not among the arms.
    """
    if baseline not in values:
        raise SelfieLiteError(
            f"the baseline {baseline} has not been measured; there are {', '.join(values) or 'none'}."
        )
    rows = []
    for arm, own in values.items():
        seeds = sorted(own.keys() & values[baseline].keys())
        if arm == baseline or not seeds:
            continue
        ours, theirs = ([of[seed] for seed in seeds] for of in (own, values[baseline]))
        differences = {seed: a - b for seed, a, b in zip(seeds, ours, theirs, strict=True)}
        row = {"arm": arm, "differences": differences, "mean": statistics.mean(differences.values())}
        low = high = None
        if len(seeds) > 1:
            low, high = (float(limit) for limit in ttest_rel(ours, theirs).confidence_interval(level))
        rows.append(row | {"low": low, "high": high, "df": len(seeds) - 1})
    return sorted(rows, key=lambda row: -row["mean"])
