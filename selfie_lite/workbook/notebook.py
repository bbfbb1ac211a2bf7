"""Run one notebook through papermill, and lay it out as a web page."""

import time
import warnings
from dataclasses import dataclass
from pathlib import Path

import nbformat
import papermill
from nbconvert import HTMLExporter
from papermill.exceptions import PapermillExecutionError


@dataclass
class Outcome:
    """What became of one notebook."""

    notebook: str
    seconds: float
    ok: bool
    error: str = ""  # where and what, in plain words


def run_notebook(
    path: Path, executed: Path, values: dict[str, object], show_progress: bool, cwd: Path | None = None
) -> Outcome:
    """Execute one notebook into the file `executed`, and write that as HTML too; an error ends the notebook, not the
    caller. `cwd` is the folder that it runs in; default its own."""
    executed.parent.mkdir(parents=True, exist_ok=True)
    own = {name: value for name, value in values.items() if name in papermill.inspect_notebook(path)}
    start, error = time.perf_counter(), ""
    bar = {
        "desc": executed.stem,
        "leave": False,
        "bar_format": "{desc} {bar:24} cell {n_fmt} of {total_fmt}, {elapsed}",
    }
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of papermill's own
            papermill.execute_notebook(
                path,
                executed,
                own,
                kernel_name="python3",
                cwd=cwd or path.parent,
                progress_bar=bar if show_progress else False,
                extra_arguments=["--IPKernelApp.log_level=50"],  # its warnings are not for the reader
            )
    except PapermillExecutionError as failure:
        error = f"{executed}, cell {failure.cell_index + 1}: {failure.ename}: {failure.evalue}"
    except (RuntimeError, OSError) as failure:  # the kernel died, or did not start
        error = f"{executed}: {failure}"
    if executed.is_file():
        write_html(executed)
    return Outcome(executed.stem, round(time.perf_counter() - start, 1), not error, error)


def write_html(notebook: Path) -> Path:
    """The executed notebook as one HTML file that reads without a network."""
    exporter = HTMLExporter(mathjax_url="", require_js_url="", jquery_url="", mermaid_js_url="", widget_renderer_url="")
    page = nbformat.read(notebook, as_version=4)
    page.metadata.pop("widgets", None)  # a widget needs a kernel: the page shows the picture that it leaves
    for cell in page.cells:
        for output in cell.get("outputs", []):
            output.get("data", {}).pop("application/vnd.jupyter.widget-view+json", None)
    body, _ = exporter.from_notebook_node(page)
    page = notebook.with_suffix(".html")
    page.write_text(body.replace('.ipynb"', '.html"'), encoding="utf-8")
    return page
