"""How long a change of the patch inspector takes."""

import time

from selfie_lite.benchmarks.timing import spread
from selfie_lite.inspector.controls import NOTHING
from selfie_lite.inspector.panel import PatchInspector
from selfie_lite.inspector.state import VIEWS
from selfie_lite.machine import environment


def time_inspector(rounds: int) -> dict:
    """Milliseconds from a change of a control of the patch inspector to its new picture, in the kernel; each control
    in turn, `rounds` times, between values that differ; the first, which finds the layout, is not counted."""
    inspector, changes = PatchInspector(), {}
    settings = [(view, NOTHING) for view in VIEWS] + [(view, "mask_token") for view in VIEWS]
    for turn in range(rounds + 1):
        for view, compared in settings:
            inspector.compare_name.value, inspector.view.value = compared, view
            for name, control in {
                "image": inspector.image_number, "seed": inspector.seed, "location": inspector.location
            }.items():  # fmt: skip
                value = turn + len(view) + (0 if compared is NOTHING else 200)
                if name == "location":
                    value = inspector.masked[turn % 4]
                start, drawn = time.perf_counter(), inspector.renders
                control.value = value
                seconds = time.perf_counter() - start
                label = f"{name}, view {view}" + ("" if compared == NOTHING else ", two models")
                if turn and inspector.renders > drawn:
                    changes.setdefault(label, []).append(1000 * seconds)
    rows = [{"change": label, "milliseconds": spread(values)} for label, values in changes.items()]
    return {"environment": environment(), "rounds": rounds, "changes": rows}
