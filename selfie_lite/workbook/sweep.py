"""Run a notebook, or anything else, for every combination of values: one after the other, by several processes of this
machine, or on many machines through joblib's back ends Dask and Ray."""

import hashlib
import json
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import chdir, contextmanager
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import joblib

from selfie_lite.errors import SelfieLiteError
from selfie_lite.workbook.notebook import Outcome, folder_of_runs, read_notebook, run_notebook
from selfie_lite.workbook.parameters import read_parameters

BACKENDS = ("loky", "dask", "ray")


def read_grid(words: list[tuple[str, list[str]]], read: Callable[[str, str], Any]) -> dict[str, list]:
    """Values of each parameter; `read` takes the name and the text of one, and refuses what cannot be.

    Raises:
        SelfieLiteError: for a parameter named twice, or one without a value.
    """
    grid = {}
    for name, texts in words:
        if name in grid:
            raise SelfieLiteError(f"parameter '{name}' is named twice: give all its values after one -p.")
        if not texts:
            raise SelfieLiteError(f"parameter '{name}' needs a value or more: -p {name} VALUE …")
        grid[name] = [read(name, text) for text in texts]
    return grid


def run_notebooks(
    notebook: Path, words: list[tuple[str, list[str]]], folder: Path, show_progress: bool = False, **how: Any
) -> list[Outcome | None]:
    """Run `notebook` for every combination; each is kept in `folder` as a notebook and as a page. One that is there
    already, whole and with the same parameters, is not run again. `how` is as in `run_cells`, whose result this is.

    Raises:
        SelfieLiteError: for no such notebook, a parameter or value that it cannot have, or what `run_cells` refuses.
    """
    if not notebook.is_file():
        raise SelfieLiteError(f"there is no notebook {notebook}.")
    grid = read_grid(words, lambda name, text: read_parameters([(name, text)], [notebook])[name])
    cells = {
        title: partial(run_cell, notebook, folder, title, values, show_progress)
        for title, values in combinations(grid, notebook.stem)
    }
    return run_cells(cells, folder, **how)


def combinations(grid: dict[str, list], otherwise: str) -> list[tuple[str, dict]]:
    """Every combination, the last parameter changing fastest, each with a title of what varies."""
    varied = [name for name, values in grid.items() if len(values) > 1]
    each = [dict(zip(grid, values, strict=True)) for values in product(*grid.values())]
    return [(",".join(f"{name}={values[name]}" for name in varied) or otherwise, values) for values in each]


def run_cells(
    cells: Mapping[str, Callable[[], Outcome | None]], folder: Path, say: Callable[[str], None] = print, jobs: int = 1,
    backend: str = "loky", scheduler: str | None = None,
) -> list[Outcome | None]:  # fmt: skip
    """Run cells by their titles; one that fails does not stop the rest.

    Args:
        folder: of the sweep, which has it to itself.
        jobs: cells at once; with "dask" and "ray", as many as those have room for.
        backend: of joblib. Dask runs the cells of a worker that is lost on another one; the others need the files of
            this machine under the same paths, and these same packages.
        scheduler: the address of Dask's scheduler, or of a Ray cluster.

    Returns:
        What became of each that ran; None if it was there already.

    Raises:
        SelfieLiteError: if another sweep writes to `folder`, or the back end is not there.
        KeyboardInterrupt: after Ctrl-C or SIGTERM; what is finished stays.
    """
    outcomes: list[Outcome | None] = []
    with folder_of_runs(folder, "sweep"), _engine(backend, scheduler, jobs) as parallel:
        for title, outcome in parallel(joblib.delayed(_in_folder)(Path.cwd(), *cell) for cell in cells.items()):
            ran = outcome and (f"ran, {outcome.seconds:.0f} s" if outcome.ok else "FAILED")
            outcomes.append(outcome)
            say(f"{len(outcomes)}/{len(cells)} {title}: {ran or 'was there already'}")
    return outcomes


def _in_folder(folder: Path, title: str, cell: Callable[[], Outcome | None]) -> tuple[str, Outcome | None]:
    """One cell, in the caller's folder, wherever it runs."""
    start = time.perf_counter()
    try:
        with chdir(folder):
            return title, cell()
    except Exception as error:
        said = str(error) if isinstance(error, SelfieLiteError) else f"{type(error).__name__}: {error}"
        return title, Outcome(title, time.perf_counter() - start, False, f"{title}: {said}")


@contextmanager
def _engine(backend: str, scheduler: str | None, jobs: int) -> Iterator[joblib.Parallel]:
    """joblib's, which gives results as they come."""
    package = {"dask": "distributed"}.get(backend, backend)
    try:
        if backend == "dask":
            from distributed import Client

            if not scheduler:
                raise SelfieLiteError("--backend dask needs the address of a scheduler: --scheduler tcp://HOST:8786")
            with Client(scheduler, timeout=20), joblib.parallel_config("dask"):
                yield joblib.Parallel(return_as="generator_unordered", batch_size=1)
            return
        if backend == "ray":
            import ray
            from ray.util.joblib import register_ray

            ray.init(scheduler or "auto")
            register_ray()
    except ModuleNotFoundError:
        raise SelfieLiteError(f"--backend {backend} needs the package {package}: pip install {package}") from None
    except OSError as error:
        raise SelfieLiteError(f"there is no scheduler at {scheduler} ({error}).") from None
    with joblib.parallel_config(backend, n_jobs=-1 if backend == "ray" else jobs):
        yield joblib.Parallel(return_as="generator_unordered" if jobs > 1 else "generator", batch_size=1)


def run_cell(notebook: Path, folder: Path, title: str, values: dict, show_progress: bool) -> Outcome | None:
    """Run a notebook with these values, unless that was done."""
    executed, earlier = places(folder, title, values)
    if any(is_finished(place, values) for place in (executed, earlier)):
        return None
    if executed.exists() and not _is_whole(executed):  # its name says whose it was
        for damaged in (executed, executed.with_suffix(".html")):
            damaged.unlink(missing_ok=True)
    return run_notebook(notebook, executed, values, show_progress)


def name_of(title: str, values: dict) -> str:
    """A name for a combination that no other one has, not too long for a file: its title and a hash of its values."""
    code = hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:8]
    return f"{_plain(title).encode()[:120].decode(errors='ignore')}-{code}"


def places(folder: Path, title: str, values: dict) -> tuple[Path, Path]:
    """Where a combination is kept, and where earlier versions kept it."""
    return folder / f"{name_of(title, values)}.ipynb", folder / f"{_plain(title)}.ipynb"


def _plain(title: str) -> str:
    return re.sub(r"[^\w=,.+-]", "_", title)


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
