"""Executed notebooks as web pages."""

from pathlib import Path

from selfie_lite.files import write_file


def write_html(notebook: Path) -> Path:
    """The executed notebook as one HTML file that reads without a network."""
    import nbformat
    from nbconvert import HTMLExporter

    exporter = HTMLExporter(mathjax_url="", require_js_url="", jquery_url="", mermaid_js_url="", widget_renderer_url="")
    page = nbformat.read(notebook, as_version=4)
    page.metadata.pop("widgets", None)  # a widget needs a kernel: the page shows the picture that it leaves
    for cell in page.cells:
        for output in cell.get("outputs", []):
            output.get("data", {}).pop("application/vnd.jupyter.widget-view+json", None)
    body, _ = exporter.from_notebook_node(page)
    place = notebook.with_suffix(".html")
    write_file(place, body.replace('.ipynb"', '.html"'))
    return place
