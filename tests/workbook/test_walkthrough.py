"""The walkthrough on made-up notebooks: pages, times, a failure that does not stop the rest, wrong parameters."""

import json
import re

import pytest
from tiny import run_command as run
from tiny import write_notebook

from selfie_lite import SelfieLiteError
from selfie_lite.workbook import walkthrough
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
