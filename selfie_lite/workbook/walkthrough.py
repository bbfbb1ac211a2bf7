"""Run the notebooks one after the other through papermill, and lay the results out as web pages."""

import html
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from urllib.parse import quote

from selfie_lite.errors import SelfieLiteError, suggestion
from selfie_lite.files import read_json, write_file
from selfie_lite.machine import environment, speed_probe
from selfie_lite.workbook.notebook import Outcome, folder_of_runs, read_notebook, refuse_to_replace, run_notebook
from selfie_lite.workbook.pages import shell, write_html

NOTEBOOKS = Path(__file__).resolve().parents[2] / "nbs"


def find_notebooks(only: list[str]) -> list[Path]:
    """The notebooks of nbs/ in order, or those whose names begin with one of `only`, "03" say.

    Raises:
        SelfieLiteError: if there is none for one of `only`.
    """
    notebooks = sorted(NOTEBOOKS.glob("[0-9][0-9]_*.ipynb"))
    names = [path.stem for path in notebooks]
    for prefix in only:
        if not any(name.startswith(prefix) for name in names):
            raise SelfieLiteError(f"no notebook begins with '{prefix}'.{suggestion(prefix, names)}")
    return [path for path in notebooks if not only or path.stem.startswith(tuple(only))]


def run_walkthrough(
    notebooks: list[Path],
    values: dict[str, object],
    folder: Path,
    say: Callable[[str], None] = print,
    show_progress: bool = False,
) -> list[Outcome]:
    """Run the notebooks one after the other, and lay the results out in `folder`, with an index. A notebook that fails
    does not stop the rest; after Ctrl-C or SIGTERM what has run is kept.

    Raises:
        SelfieLiteError: if another walkthrough writes to `folder`, or something in it was not written by one.
        KeyboardInterrupt: after Ctrl-C or SIGTERM.
    """
    outcomes: list[Outcome] = []
    with folder_of_runs(folder, "walkthrough"):
        for path in notebooks:  # before any work
            refuse_to_replace(folder / path.name, path)
        _refuse_to_replace_index(folder)
        try:
            for number, path in enumerate(notebooks, 1):
                outcome = run_notebook(path, folder / path.name, values, show_progress)
                outcomes.append(outcome)
                said = "ran" if outcome.ok else "FAILED"
                say(f"{number}/{len(notebooks)} {path.stem}: {said}, {outcome.seconds:.0f} s")
        finally:
            if outcomes:
                write_index(folder, outcomes)
    return outcomes


def _refuse_to_replace_index(folder: Path) -> None:
    """An index.html and a walkthrough.json that no walkthrough has written stay."""
    for name, mark in (("index.html", "<title>selfie-lite walkthrough</title>"), ("walkthrough.json", '"notebooks"')):
        place = folder / name
        if place.exists() and not (place.is_file() and mark in place.read_text(encoding="utf-8", errors="replace")):
            raise SelfieLiteError(f"{place} is there, and not written by a walkthrough: choose another --out.")


def write_index(folder: Path, outcomes: list[Outcome]) -> Path:
    """index.html over the pages, links between them, and walkthrough.json with times, versions and device."""
    names = [outcome.notebook for outcome in outcomes]
    for at, name in enumerate(names):
        if (notebook := folder / f"{name}.ipynb").is_file():
            beside = {"← " + names[at - 1]: names[at - 1]} if at else {}
            beside["all notebooks"] = "index"
            beside |= {names[at + 1] + " →": names[at + 1]} if at + 1 < len(names) else {}
            write_html(notebook, {text: f"{to}.html" for text, to in beside.items()})
    rows = "\n".join(
        f'<tr><td><a href="{quote(o.notebook)}.html">{html.escape(o.notebook)}</a></td><td>{o.seconds:.0f} s</td>'
        f"<td>{'ran' if o.ok else 'failed: ' + html.escape(o.error)}</td></tr>"
        for o in outcomes
    )
    page = folder / "index.html"
    table = f"<table><tr><th>notebook</th><th>time</th><th>outcome</th></tr>{rows}</table>"
    write_file(page, shell("selfie-lite walkthrough", f"<h1>selfie-lite walkthrough</h1>{table}", {}))
    records = [asdict(outcome) for outcome in outcomes]
    result = {"environment": environment(), "speed_probe_seconds": speed_probe(), "notebooks": records}
    write_file(folder / "walkthrough.json", json.dumps(result, indent=1) + "\n")
    return page


def estimate_times(probe_seconds: float) -> list[dict[str, object]]:
    """How long each notebook should take here, from nbs/results/walkthrough.json: times and speed of one machine.

    Args:
        probe_seconds: this machine's `speed_probe()["cpu"]`.
    """
    needs = {"speed_probe_seconds": dict, "notebooks": list}
    recorded = read_json(NOTEBOOKS / "results" / "walkthrough.json", "the record of a walkthrough", needs)
    ratio = probe_seconds / recorded["speed_probe_seconds"]["cpu"]
    seconds = {row["notebook"]: row["seconds"] for row in recorded["notebooks"]}
    return [
        {"notebook": path.stem, "question": _question(path), "seconds, recorded": round(seconds[path.stem]),
         "seconds, estimated here": round(seconds[path.stem] * ratio)}
        for path in find_notebooks([]) if path.stem in seconds
    ]  # fmt: skip


def _question(notebook: Path) -> str:
    """What a notebook answers: the paragraph after **Question.** in its first cell."""
    text = read_notebook(notebook).cells[0].source
    return " ".join(text.partition("**Question.**")[2].partition("\n\n")[0].split())
