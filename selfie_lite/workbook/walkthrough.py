"""Run the notebooks one after the other through papermill, and lay the results out as web pages."""

import html
import json
from dataclasses import asdict
from pathlib import Path

import nbformat

from selfie_lite.errors import SelfieLiteError, suggestion
from selfie_lite.machine import environment, speed_probe
from selfie_lite.workbook.notebook import Outcome

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


def write_index(folder: Path, outcomes: list[Outcome]) -> Path:
    """index.html over the pages, and walkthrough.json with times, versions and device."""
    rows = "\n".join(
        f'<tr><td><a href="{o.notebook}.html">{o.notebook}</a></td><td>{o.seconds:.0f} s</td>'
        f"<td>{'ran' if o.ok else 'failed: ' + html.escape(o.error)}</td></tr>"
        for o in outcomes
    )
    page = folder / "index.html"
    page.write_text(
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>selfie-lite walkthrough</title>'
        "<style>body{font:16px sans-serif;max-width:50em;margin:3em auto;padding:0 1em}td,th{padding:.4em 1em;"
        "text-align:left;border-bottom:1px solid #ccc}table{border-collapse:collapse}</style>"
        "<h1>selfie-lite walkthrough</h1><table><tr><th>notebook</th><th>time</th><th>outcome</th></tr>"
        f"{rows}</table></html>\n",
        encoding="utf-8",
    )
    result = {"environment": environment(), "speed_probe_seconds": speed_probe()}
    result["notebooks"] = [asdict(outcome) for outcome in outcomes]
    (folder / "walkthrough.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return page


def estimate_times(probe_seconds: float) -> list[dict[str, object]]:
    """How long each notebook should take here, from nbs/results/walkthrough.json: times and speed of one machine.

    Args:
        probe_seconds: this machine's `speed_probe()["cpu"]`.
    """
    recorded = json.loads((NOTEBOOKS / "results" / "walkthrough.json").read_text(encoding="utf-8"))
    ratio = probe_seconds / recorded["speed_probe_seconds"]["cpu"]
    seconds = {row["notebook"]: row["seconds"] for row in recorded["notebooks"]}
    return [
        {"notebook": path.stem, "question": _question(path), "seconds, recorded": round(seconds[path.stem]),
         "seconds, estimated here": round(seconds[path.stem] * ratio)}
        for path in find_notebooks([]) if path.stem in seconds
    ]  # fmt: skip


def _question(notebook: Path) -> str:
    """What a notebook answers: the paragraph after **Question.** in its first cell."""
    text = nbformat.read(notebook, as_version=4).cells[0].source
    return " ".join(text.partition("**Question.**")[2].partition("\n\n")[0].split())
