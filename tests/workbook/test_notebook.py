"""One notebook: read, or refused in a sentence; run in a kernel of its own; written whole, and over nothing else."""

import json
import sys

import nbformat
import pytest
from tiny import write_notebook

from selfie_lite import SelfieLiteError
from selfie_lite.workbook.notebook import read_notebook, run_notebook

CONFLICT = '{"cells": [\n<<<<<<< HEAD\n {"cell_type": "raw"}\n=======\n {"cell_type": "raw"}\n>>>>>>> theirs\n]}'


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (CONFLICT, "marks of a merge conflict"),
        ("", "it is empty"),
        ('{"cells": [{"cell_type"', "no notebook, or damaged"),
        ("[1, 2]", "no notebook, or damaged"),
        ('"text"', "no notebook, or damaged"),
        ('{"nbformat": 4, "cells": 3}', "no notebook, or damaged"),
        ('{"nbformat": "four"}', "no notebook, or damaged"),
        ("import torch\n", "no notebook, or damaged"),
        (b"\xff\xfe\x00", "it is not text"),
        (None, "cannot be read"),
    ],
)
def test_what_is_no_notebook_is_refused_in_a_sentence(tmp_path, content, message):
    path = tmp_path / "a.ipynb"
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(SelfieLiteError, match=f"a.ipynb .*{message}"):
        read_notebook(path)
    with pytest.raises(SelfieLiteError, match="a.ipynb"):
        run_notebook(path, tmp_path / "out.ipynb", {})
    assert not (tmp_path / "out.ipynb").exists()


def test_it_runs_with_this_python_in_the_caller_s_folder(tmp_path, monkeypatch):
    kernel = tmp_path / "jupyter" / "kernels" / "python3" / "kernel.json"
    kernel.parent.mkdir(parents=True)
    argv = ["/opt/of-another/python", "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    kernel.write_text(json.dumps({"argv": argv, "display_name": "Python 3", "language": "python"}))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    (tmp_path / "nbs").mkdir()
    (tmp_path / "caller").mkdir()
    monkeypatch.chdir(tmp_path / "caller")
    write_notebook(tmp_path / "nbs" / "a.ipynb", "import os, sys", "print(sys.executable, os.getcwd(), steps)")
    outcome = run_notebook(tmp_path / "nbs" / "a.ipynb", tmp_path / "out.ipynb", {"steps": 7, "unknown": 1})
    assert outcome.ok, outcome.error
    said = nbformat.read(tmp_path / "out.ipynb", as_version=4)
    assert said.cells[-1].outputs[0].text.split() == [sys.executable, str(tmp_path / "caller"), "7"]
    assert said.metadata.papermill.output_path == str(tmp_path / "out.ipynb") and (tmp_path / "out.html").is_file()
    assert not list(tmp_path.glob(".writing*"))


def test_a_kernel_that_dies_is_a_failure(tmp_path):
    write_notebook(tmp_path / "01_a.ipynb", "import os; os._exit(9)")
    outcome = run_notebook(tmp_path / "01_a.ipynb", tmp_path / "out/01_a.ipynb", {})
    assert not outcome.ok and "died" in outcome.error.lower()


def test_a_notebook_that_is_not_of_a_run_is_not_replaced(tmp_path):
    write_notebook(tmp_path / "a.ipynb", "1")
    write_notebook(tmp_path / "mine.ipynb", "2")
    (tmp_path / "page.html").write_text("mine")
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    for target in ("a.ipynb", "mine.ipynb", "page.ipynb"):
        with pytest.raises(SelfieLiteError, match="choose another --out"):
            run_notebook(tmp_path / "a.ipynb", tmp_path / target, {})
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
