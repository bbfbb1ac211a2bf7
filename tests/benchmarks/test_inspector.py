from selfie_lite.benchmarks.inspector import time_inspector
from selfie_lite.inspector.state import VIEWS


def test_bench_inspector_times_every_view():
    result = time_inspector(rounds=1)
    labels = {row["change"] for row in result["changes"]}
    assert {f"image, view {view}{two}" for view in VIEWS for two in ("", ", two models")} <= labels
    assert all(0 < row["milliseconds"]["median"] < 60_000 for row in result["changes"])
