"""Timing that can be trusted on a machine which slows down or is shared.

Everything compared is timed in one run, in turns: each round times every candidate once, in a new order, so that what
slows the machine slows all of them. Results are medians over the rounds, with the lowest and the highest; ratios are
taken within a round.
"""

import random
import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch

Turns = Callable[[Mapping[str, Callable[[], Any]]], dict[str, list[float]]]  # in_turns, for so many rounds and seconds


def in_turns(
    candidates: Mapping[str, Callable[[], Any]], rounds: int, seconds: float, say: Callable[[str], None]
) -> dict[str, list[float]]:
    """Seconds for one call of each candidate, once a round, in a new order every round, after two calls to warm up."""
    calls = {}
    for name, call in candidates.items():
        say(f"  {name}: warming up")
        call()
        calls[name] = max(1, int(seconds / timed(call, 1)))
    times: dict[str, list[float]] = {name: [] for name in candidates}
    order = random.Random(0)
    for number in range(rounds):
        say(f"  round {number + 1} of {rounds}")
        for name in order.sample(list(candidates), len(candidates)):
            times[name].append(timed(candidates[name], calls[name]))
    return times


def timed(call: Callable[[], Any], count: int) -> float:
    """Seconds for one of `count` calls, all work of the device included."""
    _wait()
    start = time.perf_counter()
    for _ in range(count):
        call()
    _wait()
    return (time.perf_counter() - start) / count


def _wait() -> None:
    if torch.accelerator.is_available():
        torch.accelerator.synchronize()


def spread(values: Iterable[float]) -> dict[str, float]:
    """Median, lowest and highest, to four digits."""
    values = list(values)
    three = {"median": statistics.median(values), "low": min(values), "high": max(values)}
    return {name: float(f"{value:.4g}") for name, value in three.items()}


def speeds(times: dict[str, list[float]], images: int | dict[str, int], base: str) -> dict[str, dict[str, Any]]:
    """Images/s of every candidate, and its speed as a multiple of `base`'s in the same round."""
    counts = images if isinstance(images, dict) else dict.fromkeys(times, images)
    per_second = {name: [counts[name] / t for t in row] for name, row in times.items()}
    return {
        name: {"images_per_second": spread(row),
               f"times_{base}": spread(a / b for a, b in zip(row, per_second[base], strict=True))}
        for name, row in per_second.items()
    }  # fmt: skip
