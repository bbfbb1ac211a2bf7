from selfie_lite.benchmarks import timing


def test_every_candidate_has_its_turn_in_every_round_in_changing_order():
    called = []
    candidates = {name: lambda name=name: called.append(name) for name in "abc"}
    times = timing.in_turns(candidates, rounds=6, seconds=1e-9, say=lambda text: None)
    assert {name: len(row) for name, row in times.items()} == {"a": 6, "b": 6, "c": 6}
    rounds = [tuple(called[i : i + 3]) for i in range(6, 24, 3)]  # after the two calls each that warm up
    assert all(sorted(order) == ["a", "b", "c"] for order in rounds) and len(set(rounds)) > 1


def test_ratios_are_taken_within_a_round():
    rows = timing.speeds({"slow": [2.0, 8.0, 2.0], "fast": [1.0, 2.0, 0.5]}, 10, "slow")
    assert rows["fast"]["times_slow"] == {"median": 4.0, "low": 2.0, "high": 4.0}
    assert rows["fast"]["images_per_second"] == {"median": 10.0, "low": 5.0, "high": 20.0}
    assert rows["slow"]["times_slow"] == {"median": 1.0, "low": 1.0, "high": 1.0}
    unequal = timing.speeds({"one": [1.0, 1.0], "four": [2.0, 2.0]}, {"one": 10, "four": 40}, "one")
    assert unequal["four"]["times_one"]["median"] == 2.0
