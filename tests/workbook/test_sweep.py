"""A sweep on made-up notebooks: every combination, resumed, with failures that do not stop the rest."""

import json
import re

import nbformat
import pytest
from tiny import run_command as run
from tiny import write_notebook

PARAMETERS = "labels: float = 1.0  # part\nseed: int = 0  # of all\narm: str = 'a'  # what"
CODE = """
from pathlib import Path
Path("log.txt").open("a").write(f"{arm} {labels} {seed}\\n")
assert not (seed == 1 and Path("broken").exists()), "broken"
"""


@pytest.fixture
def notebook(tmp_path, monkeypatch):
    write_notebook(tmp_path / "06_x.ipynb", CODE, parameters=PARAMETERS)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "06_x.ipynb"


def ran(folder):
    log = folder / "log.txt"
    lines = log.read_text().splitlines() if log.exists() else []
    log.unlink(missing_ok=True)
    return lines


def test_every_combination_runs_once_a_failed_one_again(notebook, tmp_path, monkeypatch, capsys):
    words = ["sweep", "06_x.ipynb", "-p", "labels", "0.5", "1.0", "-p", "seed", "0", "1", "-p", "arm", "b"]
    (tmp_path / "broken").touch()
    assert run(monkeypatch, *words) == 1
    said = capsys.readouterr()
    assert ran(tmp_path) == ["b 0.5 0", "b 0.5 1", "b 1.0 0", "b 1.0 1"], "in order, in the caller's folder"
    assert "2/4 labels=0.5,seed=1: FAILED" in said.out and "3/4 labels=1.0,seed=0: ran" in said.out
    assert "AssertionError: broken" in " ".join(said.err.split()) and "2 of 4" in said.out
    (tmp_path / "broken").unlink()
    assert run(monkeypatch, *words) == 0
    assert ran(tmp_path) == ["b 0.5 1", "b 1.0 1"]
    assert run(monkeypatch, *words, "-p", "labels", "1") == 2 and "named twice" in capsys.readouterr().err
    words[words.index("1.0")] = "0.8"
    assert run(monkeypatch, *words) == 0
    assert ran(tmp_path) == ["b 0.8 0", "b 0.8 1"], "a larger grid runs what is new"
    names = {path.name for path in (tmp_path / "runs/sweep/06_x").glob("*.ipynb")}
    assert "labels=0.5,seed=1.ipynb" in names and len(names) == 6
    assert len(list((tmp_path / "runs/sweep/06_x").glob("*.html"))) == 6


def test_other_fixed_values_or_a_cut_off_notebook_run_again(notebook, tmp_path, monkeypatch):
    words = ["sweep", "06_x.ipynb", "-p", "seed", "0", "2", "--out", "there"]
    assert run(monkeypatch, *words, "-p", "arm", "b") == 0
    assert len(ran(tmp_path)) == 2
    assert run(monkeypatch, *words, "-p", "arm", "c") == 0
    assert ran(tmp_path) == ["c 1.0 0", "c 1.0 2"]
    whole, cut = tmp_path / "there/seed=0.ipynb", tmp_path / "there/seed=2.ipynb"
    cut.write_text(cut.read_text()[:200])
    page = json.loads(whole.read_text())
    page["cells"][-1]["metadata"]["papermill"]["status"] = "running"  # killed while it ran
    whole.write_text(json.dumps(page))
    assert run(monkeypatch, *words, "-p", "arm", "c") == 0
    assert len(ran(tmp_path)) == 2
    nbformat.validate(nbformat.read(cut, as_version=4))


def test_values_that_cannot_be_in_a_file_name(notebook, tmp_path, monkeypatch):
    assert run(monkeypatch, "sweep", "06_x.ipynb", "-p", "arm", "runs/a b", "x{y}") == 0
    assert ran(tmp_path) == ["runs/a b 1.0 0", "x{y} 1.0 0"]
    assert len(list((tmp_path / "runs/sweep/06_x").glob("*.ipynb"))) == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["none.ipynb", "-p", "seed", "1"], "there is no notebook none.ipynb"),
        (["06_x.ipynb", "-p", "sede", "1"], "no parameter 'sede' in 06_x. Did you mean 'seed'"),
        (["06_x.ipynb", "-p", "seed", "many"], "'seed' takes a whole number"),
        (["06_x.ipynb", "-p", "seed"], "'seed' needs a value"),
        (["06_x.ipynb", "seed", "1"], "'seed' is out of place"),
        (["06_x.ipynb", "-p", "seed", "1", "--ot", "x"], "'--ot' is out of place"),
    ],
)
def test_mistakes_are_refused_before_anything_runs(notebook, tmp_path, monkeypatch, capsys, words, message):
    assert run(monkeypatch, "sweep", *words) == 2
    assert re.search(message, " ".join(capsys.readouterr().err.split()))
    assert ran(tmp_path) == []
