"""The walkthrough on made-up notebooks: pages, times, a failure that does not stop the rest, wrong parameters."""

import json
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tiny import run_command as run
from tiny import write_notebook

from selfie_lite import SelfieLiteError
from selfie_lite.files import locked
from selfie_lite.workbook import walkthrough
from selfie_lite.workbook.notebook import Outcome
from selfie_lite.workbook.parameters import read_parameters


@pytest.fixture
def notebooks(tmp_path, monkeypatch):
    folder = tmp_path / "nbs"
    (folder / "results").mkdir(parents=True)
    write_notebook(folder / "01_a.ipynb", "print('steps are', steps)", "seen = 2 / steps")
    write_notebook(
        folder / "02_b.ipynb", "print('b ran')", parameters="rate: float = 0.5  # of learning\ndata: str = 'x'  # set"
    )
    monkeypatch.setattr(walkthrough, "NOTEBOOKS", folder)
    monkeypatch.chdir(tmp_path)
    return folder


def test_writes_notebooks_pages_and_an_index(notebooks, tmp_path, monkeypatch, capsys):
    assert run(monkeypatch, "walkthrough", "-p", "steps", "7") == 0
    said = capsys.readouterr().out
    assert "1/2 01_a: ran" in said and "2/2 02_b: ran" in said
    out = tmp_path / "runs" / "walkthrough"
    assert "steps are 7" in (out / "01_a.ipynb").read_text(encoding="utf-8")
    index = (out / "index.html").read_text(encoding="utf-8")
    for name in ("01_a", "02_b"):
        page = (out / f"{name}.html").read_text(encoding="utf-8")
        assert f'href="{name}.html"' in index
        assert 'href="02_b.html"' in page, "links between notebooks lead to pages"
        assert not re.search(r'<(script|link|img)[^>]+(src|href)="https?:', page), "a page reads without a network"
    recorded = json.loads((out / "walkthrough.json").read_text(encoding="utf-8"))
    assert [row["ok"] for row in recorded["notebooks"]] == [True, True]
    assert recorded["environment"]["versions"]["torch"] and recorded["speed_probe_seconds"]["cpu"] > 0


def test_a_failure_is_named_and_the_rest_still_runs(notebooks, tmp_path, monkeypatch, capsys):
    assert run(monkeypatch, "walkthrough", "-p", "steps", "0", "--out", "there") == 1
    said = capsys.readouterr()
    assert "1/2 01_a: FAILED" in said.out and "2/2 02_b: ran" in said.out
    assert "01_a.ipynb, cell 5: ZeroDivisionError: division by zero" in " ".join(said.err.split())
    assert "Traceback" not in said.err
    assert "failed" in (tmp_path / "there" / "index.html").read_text(encoding="utf-8")


def test_only_runs_what_is_named(notebooks, tmp_path, monkeypatch):
    assert run(monkeypatch, "walkthrough", "--only", "02", "--out", "there") == 0
    assert not (tmp_path / "there" / "01_a.ipynb").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["-p", "step", "7"], "no parameter 'step'.*Did you mean 'steps'"),
        (["-p", "steps", "many"], "'steps' takes a whole number, for instance 3, but 'many'"),
        (["-p", "rate", "fast"], "'rate' takes a number"),
        (["--only", "02", "-p", "steps", "7"], "no parameter 'steps' in 02_b"),
        (["--only", "12"], "no notebook begins with '12'"),
    ],
)
def test_mistakes_are_refused_before_anything_runs(notebooks, tmp_path, monkeypatch, capsys, words, message):
    assert run(monkeypatch, "walkthrough", *words) == 2
    assert re.search(message, " ".join(capsys.readouterr().err.split()))
    assert not (tmp_path / "runs").exists()


def test_what_no_walkthrough_wrote_is_not_replaced(notebooks, tmp_path, monkeypatch, capsys):
    before = {path: path.read_bytes() for path in notebooks.iterdir() if path.is_file()}
    assert run(monkeypatch, "walkthrough", "--out", "nbs") == 2
    assert "no notebook that a run has written: choose another --out" in " ".join(capsys.readouterr().err.split())
    assert {path: path.read_bytes() for path in before} == before and len(list(notebooks.glob("*.html"))) == 0
    for name in ("index.html", "walkthrough.json", "02_b.html"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).write_text("mine")
        assert run(monkeypatch, "walkthrough", "--out", name) == 2
        assert (tmp_path / name / name).read_text() == "mine"
        assert "there, and not written by a" in " ".join(capsys.readouterr().err.split())


def test_two_at_once_in_one_folder(notebooks, tmp_path, monkeypatch, capsys):
    (tmp_path / "there").mkdir()
    with locked(tmp_path / "there", "held"):
        assert run(monkeypatch, "walkthrough", "--out", "there") == 2
    assert "another walkthrough is writing to there" in " ".join(capsys.readouterr().err.split())
    (tmp_path / "file").touch()
    assert run(monkeypatch, "walkthrough", "--out", "file") == 2 and "is a file" in capsys.readouterr().err
    assert (
        run(monkeypatch, "walkthrough", "--out", "file/x") == 2 and "is a file, not a folder" in capsys.readouterr().err
    )


def test_names_are_text_in_the_index(tmp_path):
    outcome = Outcome('a"b<i>&', 1.0, False, "<script>alert(1)</script>")
    page = walkthrough.write_index(tmp_path, [outcome]).read_text(encoding="utf-8")
    assert "<script>" not in page and "<i>" not in page and 'href="a%22b%3Ci%3E%26.html"' in page


STOPPED = """
import sys
from pathlib import Path
from selfie_lite import cli
from selfie_lite.files import locked
from selfie_lite.workbook import walkthrough
from selfie_lite.workbook.notebook import Outcome
walkthrough.NOTEBOOKS = Path("nbs").absolute()
sys.argv = ["selfie-lite", "walkthrough", "--out", "there"]
cli.main()
"""
SLOW = """
import os, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
open("pids.part", "w").write(f"{os.getpid()} {child.pid}")
os.replace("pids.part", "pids")
time.sleep(600)
"""


def test_sigterm_ends_the_kernel_and_its_processes_and_keeps_the_pages_that_are_done(notebooks, tmp_path):
    write_notebook(notebooks / "02_b.ipynb", SLOW)
    process = subprocess.Popen([sys.executable, "-c", STOPPED], stderr=subprocess.PIPE, text=True)
    while not (tmp_path / "pids").exists():
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.1)
    process.terminate()
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 130 and "Traceback" not in said and "stopped" in said
    for pid in (tmp_path / "pids").read_text().split():
        state = Path(f"/proc/{pid}/stat")
        assert not state.exists() or state.read_text().split(")")[1].split()[0] == "Z", "it still runs"
    names = {path.name for path in (tmp_path / "there").iterdir() if path.suffix in (".html", ".ipynb")}
    assert names == {"01_a.html", "01_a.ipynb", "index.html"}
    assert "01_a" in (tmp_path / "there" / "index.html").read_text(encoding="utf-8")


def test_text_parameters_stay_text(notebooks):
    paths = walkthrough.find_notebooks([])
    values = read_parameters([("data", "2019"), ("rate", "1"), ("steps", "4")], paths)
    assert values == {"data": "2019", "rate": 1, "steps": 4}


def test_estimates_scale_with_the_speed_of_the_machine(notebooks):
    record = {"speed_probe_seconds": {"cpu": 0.5}, "notebooks": [{"notebook": "01_a", "seconds": 10.0}]}
    (notebooks / "results" / "walkthrough.json").write_text(json.dumps(record), encoding="utf-8")
    (row,) = walkthrough.estimate_times(1.0)
    assert row == {
        "notebook": "01_a",
        "question": "why 01_a?",
        "seconds, recorded": 10,
        "seconds, estimated here": 20,
    }


def test_no_such_prefix_offers_names(notebooks):
    with pytest.raises(SelfieLiteError, match="'02_b' or '01_a'"):
        walkthrough.find_notebooks(["01_b"])
