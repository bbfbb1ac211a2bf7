"""Reading a ladder: paired differences with their t interval, and no unequal budgets."""

import json
import statistics

import pytest

from selfie_lite import SelfieLiteError
from selfie_lite.evaluation.ladder import by_arm, paired_differences, read_ladder


def line(arm, seed, linear, budget=None, **more):
    known = {"kind": "pretrain", "arm": arm, "seed": seed, "budget": budget or {"steps": 1}}
    return known | more | {"whole": {"linear": linear}}


LINES = [
    *(line("a", seed, linear) for seed, linear in enumerate((0.40, 0.50, 0.45))),
    *(line("b", seed, linear) for seed, linear in enumerate((0.43, 0.51, 0.47))),
    line("c", 1, 0.30),
    {"kind": "search", "arm": "a", "seed": 0, "budget": {"steps": 1}},
]


def test_a_number_of_every_arm_and_seed(tmp_path):
    file = tmp_path / "ladder.jsonl"
    assert read_ladder(file) == []
    file.write_text("".join(json.dumps(one) + "\n" for one in LINES))
    found = by_arm(read_ladder(file), "pretrain", "whole", "linear")
    assert found == {"a": {0: 0.40, 1: 0.50, 2: 0.45}, "b": {0: 0.43, 1: 0.51, 2: 0.47}, "c": {1: 0.30}}
    assert by_arm(LINES, "pretrain", "puzzle", "own", "row") == {}
    file.write_text('{"arm": "a"}\n')
    with pytest.raises(SelfieLiteError, match="line 1"):
        read_ladder(file)


def test_differences_are_taken_seed_by_seed_with_the_interval_of_students_t():
    b, c = paired_differences(by_arm(LINES, "pretrain", "whole", "linear"), "a")
    assert b["arm"] == "b" and b["df"] == 2 and b["differences"] == pytest.approx({0: 0.03, 1: 0.01, 2: 0.02})
    half = 4.302653 * statistics.stdev([0.03, 0.01, 0.02]) / 3**0.5  # t of 2 degrees of freedom, two-sided 95 %
    assert (b["low"], b["high"]) == pytest.approx((0.02 - half, 0.02 + half), abs=1e-6)
    assert c["arm"] == "c" and c["df"] == 0 and c["low"] is None and c["mean"] == pytest.approx(-0.20)


def test_unequal_budgets_and_a_missing_baseline_are_refused():
    with pytest.raises(SelfieLiteError, match="unequal budgets"):
        by_arm([*LINES, line("d", 0, 0.9, budget={"steps": 2})], "pretrain", "whole", "linear")
    with pytest.raises(SelfieLiteError, match="baseline x"):
        paired_differences({"a": {0: 0.1}}, "x")
