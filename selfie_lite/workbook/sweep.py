"""Run one notebook through papermill for every combination of parameter values."""

import re
from collections.abc import Callable
from itertools import product
from pathlib import Path

import nbformat

from selfie_lite.errors import SelfieLiteError
from selfie_lite.workbook.notebook import Outcome, run_notebook
from selfie_lite.workbook.parameters import read_parameters


def read_grid(notebook: Path, words: list[tuple[str, list[str]]]) -> dict[str, list]:
    """Values of each parameter, as YAML reads them and checked against the notebook.

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
    """
    cells = [dict(zip(grid, values, strict=True)) for values in product(*grid.values())]
    varied = [name for name, values in grid.items() if len(values) > 1]
    done = []
    for number, values in enumerate(cells, 1):
        name = ",".join(f"{key}={values[key]}" for key in varied) or notebook.stem
        executed = folder / (re.sub(r"[^\w=,.+-]", "_", name) + ".ipynb")
        if is_finished(executed, values):
            outcome = None
        else:
            outcome = run_notebook(notebook, executed, values, show_progress, cwd=Path.cwd())
        said = "was there already" if outcome is None else f"ran, {outcome.seconds:.0f} s" if outcome.ok else "FAILED"
        say(f"{number}/{len(cells)} {name}: {said}")
        done.append((values, outcome))
    return done


def is_finished(executed: Path, values: dict) -> bool:
    """Whether papermill ran this notebook to its end, with these parameters."""
    try:
        notebook = nbformat.read(executed, as_version=4)
    except (OSError, ValueError):  # not there, or cut off while it was written
        return False
    record = notebook.metadata.get("papermill", {})
    ran = all(cell.metadata.get("papermill", {}).get("status") == "completed" for cell in notebook.cells)
    return ran and bool(record.get("end_time")) and not record.get("exception") and record.get("parameters") == values
