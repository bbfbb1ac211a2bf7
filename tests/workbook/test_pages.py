"""Pages of notebooks: links, contents, words for pictures, boards that need no Python."""

import json
import re

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from selfie_lite.workbook.pages import STILL, WIDGET, figure_words, write_html

PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="


def shown(data, **metadata):
    return new_output("display_data", data, metadata=metadata)


@pytest.fixture
def page(tmp_path):
    """Of a notebook with two figures, a table and two inspectors."""
    still = json.dumps({"puzzles": [], "title": "</script><script>alert(1)</script>"})
    table = "<table><thead><tr><th></th><th>a</th></tr></thead></table>"
    cells = [
        new_markdown_cell(
            "# A\n\n[next](02_b.ipynb#there), [elsewhere](https://example.org/c.ipynb)\n\n## One\n\n## Two"
        ),
        new_code_cell("figures.draw_grid(x)\ndraw_nothing()", outputs=[shown({"image/png": PIXEL}) for _ in range(2)]),
        new_code_cell("y", outputs=[shown({"image/png": PIXEL}, **{"image/png": {"alt": "my words"}})]),
        new_code_cell("frame", outputs=[shown({"text/html": table})]),
        *(
            new_code_cell("p", outputs=[shown({WIDGET: {"model_id": "1"}, STILL: still, "image/png": PIXEL})])
            for _ in "ab"
        ),
    ]
    nbformat.write(new_notebook(cells=cells), tmp_path / "01_a.ipynb")
    links = {"all & everything": "index.html"}
    return write_html(tmp_path / "01_a.ipynb", links).read_text(encoding="utf-8")


def test_links_lead_to_pages_and_contents_to_headings(page):
    assert 'href="02_b.html#there"' in page and 'href="https://example.org/c.ipynb"' in page
    assert page.count('<a href="index.html">all &amp; everything</a>') == 2 and 'href="#top"' in page
    contents = re.search(r'<details class="contents">.*?</details>', page, re.DOTALL)[0]
    names = re.findall(r'href="#([^"]+)"', contents)
    assert len(names) == 2 and all(f'id="{name}"' in page for name in names)


def test_every_picture_has_words(page):
    words = re.findall(r'<img alt="([^"]*)"', page)
    assert words == [
        "Figure: One image (3, H, W) uint8 with its patch grid.", "Figure, described in the text beside it.", "my words"
    ]  # fmt: skip
    assert next(figure_words("figures.draw_logits(a)")).startswith("Figure: Softmax of logits")


def test_an_inspector_is_a_board_of_its_own_and_its_puzzles_are_data(page):
    assert all(page.count(f'id="board-{number}"') == 1 for number in (0, 1)) and "</script><script>alert" not in page
    assert page.count("function render(") == 2 and "jupyter.widget-view" not in page
    assert not re.search(r'<(script|link|img)[^>]+(src|href)="https?:', page)


def test_what_is_wide_is_scrolled_by_keyboard_and_corners_head_nothing(page):
    assert "<pre>" not in page and '<table tabindex="0">' in page and "<th></th>" not in page
    assert '<html lang="en">' in page and "prefers-color-scheme: dark" in page and "@media print" in page
