"""Run one notebook through papermill for every combination of parameter values."""

import hashlib
import json
import re
from collections.abc import Callable
from itertools import product
from pathlib import Path

from selfie_lite.errors import SelfieLiteError
from selfie_lite.workbook.notebook import Outcome, folder_of_runs, read_notebook, run_notebook
from selfie_lite.workbook.parameters import read_parameters


def read_grid(notebook: Path, words: list[tuple[str, list[str]]]) -> dict[str, list]:
    """Values of each parameter, checked against the notebook.

    Raises:
        SelfieLiteError: for no such notebook, a parameter it lacks, one named twice, or one without a value.
    """
    if not notebook.is_file():
        raise SelfieLiteError(f"there is no notebook {notebook}.")
    grid = {}
    for name, texts in words:
        if name in grid:
            raise SelfieLiteError(f"parameter '{name}' is named twice: give all its values after one -p.")
        if not texts:
            raise SelfieLiteError(f"parameter '{name}' needs a value or more: -p {name} VALUE …")
        grid[name] = [read_parameters([(name, text)], [notebook])[name] for text in texts]
    return grid


def run_sweep(
    notebook: Path,
    grid: dict[str, list],
    folder: Path,
    say: Callable[[str], None] = print,
    show_progress: bool = False,
) -> list[tuple[dict, Outcome | None]]:
    """Run `notebook` for every combination, the last parameter changing fastest; each is kept in `folder` as a notebook
    and as a page. One that is there already, whole and with the same parameters, is not run again; one that fails does
    not stop the rest.

    Returns:
        For each combination its values, and what became of it; None if it was there already.

    Raises:
        SelfieLiteError: if another sweep writes to `folder`, or something that is no notebook of a run is in the way.
    """
    combinations = [dict(zip(grid, values, strict=True)) for values in product(*grid.values())]
    varied = [name for name, values in grid.items() if len(values) > 1]
    done = []
    with folder_of_runs(folder, "sweep"):
        for number, values in enumerate(combinations, 1):
            title = ",".join(f"{key}={values[key]}" for key in varied) or notebook.stem
            executed, earlier = places(folder, title, values)
            said, outcome = "was there already", None
            if not any(is_finished(place, values) for place in (executed, earlier)):
                if executed.exists() and not _is_whole(executed):  # its name says whose it was
                    for damaged in (executed, executed.with_suffix(".html")):
                        damaged.unlink(missing_ok=True)
                outcome = run_notebook(notebook, executed, values, show_progress)
                said = f"ran, {outcome.seconds:.0f} s" if outcome.ok else "FAILED"
            say(f"{number}/{len(combinations)} {title}: {said}")
            done.append((values, outcome))
    return done


def places(folder: Path, title: str, values: dict) -> tuple[Path, Path]:
    """Where a combination is kept, under a name that no other one has; and where earlier versions kept it."""
    plain = re.sub(r"[^\w=,.+-]", "_", title)
    code = hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:8]
    short = plain.encode()[:120].decode(errors="ignore")
    return folder / f"{short}-{code}.ipynb", folder / f"{plain}.ipynb"


def is_finished(executed: Path, values: dict) -> bool:
    """Whether papermill ran this notebook to its end, with these parameters."""
    if not _is_whole(executed):
        return False
    notebook = read_notebook(executed)
    record = notebook.metadata.get("papermill", {})
    ran = all(cell.metadata.get("papermill", {}).get("status") == "completed" for cell in notebook.cells)
    return ran and bool(record.get("end_time")) and not record.get("exception") and record.get("parameters") == values


def _is_whole(executed: Path) -> bool:
    """False for a notebook that is not there, or was cut off while it was written."""
    try:
        read_notebook(executed)
    except SelfieLiteError:
        return False
    return True
