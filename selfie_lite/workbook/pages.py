"""Executed notebooks as web pages: one file each, which reads without a network, in the dark, on paper and aloud."""

import html
import json
import re
from collections.abc import Mapping
from importlib.resources import files
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import quote

from selfie_lite.files import write_file
from selfie_lite.workbook import figures

STILL = "application/vnd.selfie-lite.board"  # what an inspector leaves in its output
WIDGET = "application/vnd.jupyter.widget-view+json"
MOST_LINKS = 14  # in a table of contents


def write_html(notebook: Path, links: Mapping[str, str] | None = None) -> Path:
    """The executed notebook as one HTML file; an inspector in it is a board that works without Python.

    links: {text: address} to other pages, shown above and below.
    """
    import nbformat
    from nbconvert import HTMLExporter

    page = nbformat.read(notebook, as_version=4)
    boards, number = False, count()
    for cell in page.cells:
        words = figure_words(cell.source)
        if cell.metadata.get("jupyter", {}).get("source_hidden"):  # folded: imports and the like
            cell.metadata["transient"] = {"remove_source": True}
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            data.pop(WIDGET, None)  # it needs a kernel
            if still := data.pop(STILL, None):
                data["text/html"], boards = board_html(json.loads(still), next(number)), True
            for kind in [kind for kind in data if kind.startswith("image/")]:
                output.setdefault("metadata", {}).setdefault(kind, {}).setdefault("alt", next(words))
    body, _ = HTMLExporter(template_name="basic").from_notebook_node(page)
    body = re.sub(r'(href="[^":]*)\.ipynb((?:#[^"]*)?")', r"\1.html\2", body)
    for tag in ("pre", "table"):  # what is wider than the page is scrolled, by keyboard too
        body = re.sub(f"<{tag}\\b", f'<{tag} tabindex="0"', body)
    body = body.replace("<th></th>", "<td></td>")  # the corner of a data frame heads nothing
    place = notebook.with_suffix(".html")
    write_file(place, shell(notebook.stem, _contents(body) + body, links or {}, boards))
    return place


def shell(title: str, body: str, links: Mapping[str, str], boards: bool = False) -> str:
    """A whole page around its body."""
    nav = " · ".join(f'<a href="{quote(to, safe="/#:")}">{html.escape(text)}</a>' for text, to in links.items())
    style = _read("workbook", "pages.css") + (_read("inspector", "board.css") if boards else "")
    head = '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
    up = f'<nav aria-label="At the end"><a href="#top">to the top</a>{" · " if nav else ""}{nav}</nav>'
    nav = f'<nav aria-label="Pages">{nav}</nav>' if nav else ""
    return (
        f'<!doctype html>\n<html lang="en"><head>{head}<title>{html.escape(title)}</title><style>{style}</style></head>'
        f'<body id="top">{nav}<main>{body}</main>{up}</body></html>\n'
    )


def board_html(still: dict[str, Any], number: int) -> str:
    """The inspector's board over puzzles that were computed before: `messages.still`."""
    data = json.dumps(still).replace("<", "\\u003c")
    return (
        f'<div id="board-{number}"></div><script type="application/json" id="puzzles-{number}">{data}</script>'
        f'<script type="module">{_read("inspector", "board.js")}{_read("inspector", "still.js")}'
        f'const data = JSON.parse(document.getElementById("puzzles-{number}").textContent);\n'
        f'render({{ model: still(data), el: document.getElementById("board-{number}") }});</script>'
    )


def figure_words(source: str) -> Any:
    """What stands for each picture of a cell where it cannot be seen: what the function that drew it says it draws."""
    for name in re.findall(r"\bdraw_\w+", source):
        if drawn := getattr(getattr(figures, name, None), "__doc__", None):
            first = re.split(r"[.:;]?\s*\n\s*\n|[.:;]\s", drawn)[0]
            yield f"Figure: {' '.join(first.split())}."
    while True:
        yield "Figure, described in the text beside it."


def _contents(body: str) -> str:
    """A table of contents from the second-order headings."""
    found = re.findall(r'<h2 id="([^"]*)">(.*?)<a class="anchor-link"', body, re.DOTALL)[:MOST_LINKS]
    lines = "".join(f'<li><a href="#{name}">{text}</a></li>' for name, text in found)
    return f'<details class="contents"><summary>On this page</summary><ol>{lines}</ol></details>' if lines else ""


def _read(*path: str) -> str:
    return files("selfie_lite").joinpath(*path).read_text(encoding="utf-8")
