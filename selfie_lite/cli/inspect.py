"""selfie-lite inspect: the patch inspector as a page of its own."""

import subprocess
import sys
from pathlib import Path

import click

from selfie_lite.cli.base import Number, Text, app, err


@app.command()
@click.option("--model", type=Text(), default="additive", help="A bundled model, a run, or the folder of a checkpoint.")
@click.option("--compare", type=Text(), help="A second one beside it.")
@click.option("--data", type=Text(), default="sample", help="A data set, a folder of images, or one image.")
@click.option("--port", type=Number(int, 1, 65535), default=8866, help="Of the page.")
@click.option("--browser/--no-browser", default=True, help="Open a browser.")
def inspect(model, compare, data, port, browser):
    """Open the patch inspector alone, as a page (Voilà). Ctrl-C ends it."""
    import nbformat

    from selfie_lite.inspector import PatchInspector

    call = repr(PatchInspector(model, data, compare=compare))  # a mistake is told here, not in the page
    page = Path("runs/inspector/inspector.ipynb")
    page.parent.mkdir(parents=True, exist_ok=True)
    source = f"import os\n\nos.chdir({str(Path.cwd())!r})\nfrom selfie_lite.inspector import PatchInspector\n\n{call}"
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)], metadata=kernel), page)
    words = ["voila", str(page), f"--port={port}", "--show_tracebacks=False", *([] if browser else ["--no-browser"])]
    words += ["--Voila.tornado_settings={'websocket_max_message_size': 100_000_000}"]  # or no upload above 10 MB
    words += [f"--MappingKernelManager.cull_{what}=60" for what in ("interval", "idle_timeout")]  # of pages left behind
    err.print(f"the inspector is at http://localhost:{port}/ while this runs; Ctrl-C ends it", markup=False)
    sys.exit(subprocess.run([sys.executable, "-m", *words]).returncode)
