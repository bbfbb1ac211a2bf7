"""A sweep on made-up notebooks: every combination, resumed, with failures that do not stop the rest."""

import json
import os
import re
import signal
from functools import partial

import nbformat
import pytest
import tiny
from tiny import run_command as run
from tiny import write_notebook

from selfie_lite.files import locked
from selfie_lite.training.pretrain import PRESETS
from selfie_lite.workbook import sweep

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
    assert len(names) == 6 and len([name for name in names if name.startswith("labels=0.5,seed=1-")]) == 1
    assert len(list((tmp_path / "runs/sweep/06_x").glob("*.html"))) == 6


def test_other_fixed_values_or_a_cut_off_notebook_run_again(notebook, tmp_path, monkeypatch):
    words = ["sweep", "06_x.ipynb", "-p", "seed", "0", "2", "--out", "there"]
    assert run(monkeypatch, *words, "-p", "arm", "b") == 0
    assert len(ran(tmp_path)) == 2
    assert run(monkeypatch, *words, "-p", "arm", "c") == 0
    assert ran(tmp_path) == ["c 1.0 0", "c 1.0 2"]
    assert len(list((tmp_path / "there").glob("*.ipynb"))) == 4, "no result takes the place of another"
    of_c = lambda path: nbformat.read(path, as_version=4).metadata.papermill.parameters["arm"] == "c"  # noqa: E731
    whole, cut = filter(of_c, sorted((tmp_path / "there").glob("*.ipynb")))
    cut.write_text(cut.read_text()[:200])
    page = json.loads(whole.read_text())
    page["cells"][-1]["metadata"]["papermill"]["status"] = "running"  # killed while it ran
    whole.write_text(json.dumps(page))
    assert run(monkeypatch, *words, "-p", "arm", "c") == 0
    assert len(ran(tmp_path)) == 2
    nbformat.validate(nbformat.read(cut, as_version=4))


def test_values_that_cannot_be_in_a_file_name(notebook, tmp_path, monkeypatch):
    arms = ["runs/a b", "runs_a_b", "ä" * 300]
    assert run(monkeypatch, "sweep", "06_x.ipynb", "-p", "arm", *arms) == 0
    assert ran(tmp_path) == [f"{arm} 1.0 0" for arm in arms]
    assert len(list((tmp_path / "runs/sweep/06_x").glob("*.ipynb"))) == 3
    assert run(monkeypatch, "sweep", "06_x.ipynb", "-p", "arm", *arms) == 0 and ran(tmp_path) == []


def test_a_sweep_under_the_earlier_names_is_recognised(tmp_path):
    places = [sweep.places(tmp_path, f"labels=0.5,arm={arm}", {"labels": 0.5, "arm": arm}) for arm in ("a b", "a_b")]
    assert places[0][1] == places[1][1] == tmp_path / "labels=0.5,arm=a_b.ipynb" and places[0][0] != places[1][0]
    write_notebook(places[0][1], "1")
    executed = nbformat.read(places[0][1], 4)
    executed.metadata.papermill = {"end_time": "now", "exception": None, "parameters": {"labels": 0.5, "arm": "a b"}}
    for cell in executed.cells:
        cell.metadata.papermill = {"status": "completed"}
    nbformat.write(executed, places[0][1])
    assert sweep.is_finished(places[0][1], {"labels": 0.5, "arm": "a b"})
    assert not sweep.is_finished(places[0][1], {"labels": 0.5, "arm": "a_b"}), "two shared a name"
    assert not sweep.is_finished(places[0][0], {"labels": 0.5, "arm": "a b"}), "not there"


def test_two_at_once_in_one_folder(notebook, tmp_path, monkeypatch, capsys):
    (tmp_path / "there").mkdir()
    with locked(tmp_path / "there", "held"):
        assert run(monkeypatch, "sweep", "06_x.ipynb", "-p", "seed", "0", "--out", "there") == 2
    assert "another sweep is writing to there" in " ".join(capsys.readouterr().err.split()) and ran(tmp_path) == []


def test_settings_of_training_by_two_processes(tmp_path, monkeypatch, capsys):
    """The second time there is nothing to do; a run that was stopped goes on."""
    monkeypatch.chdir(tmp_path)
    tiny.make_data(tmp_path / "cache")
    monkeypatch.setenv("SELFIE_LITE_DATA", str(tmp_path / "cache"))
    monkeypatch.setitem(PRESETS, "laptop", tiny.config(steps=2, warmup_steps=0, save_every=1))
    words = ["sweep", "pretrain", "-p", "learning_rate", "1e-3", "0.002", "-p", "seed", "1", "--jobs", "2"]
    assert run(monkeypatch, *words) == 0
    said = capsys.readouterr().out
    assert "learning_rate=0.001: ran" in said and "2 of 2 are in runs" in said
    runs = sorted((tmp_path / "runs").glob("pretrain,*"))
    assert [json.loads((run / "config.json").read_text())["seed"] for run in runs] == [1, 1]
    assert run(monkeypatch, *words[:-2]) == 0 and capsys.readouterr().out.count("was there already") == 2
    monkeypatch.setitem(PRESETS, "laptop", tiny.config(steps=2, warmup_steps=0, data="none"))
    assert run(monkeypatch, "sweep", "pretrain", "-p", "seed", "1", "2") == 1
    assert "seed=1: FAILED" in (said := capsys.readouterr()).out and "'none'" in said.err


SLEEPY = """
import os, sys, time
from pathlib import Path
from selfie_lite.workbook.notebook import Outcome
def cell(number):
    with open(f"{number}-{os.getpid()}", "w"):
        pass
    while number == 3 and not Path("go on").exists():
        time.sleep(0.05)
    return Outcome(str(number), 0.0, True)
"""


def test_cells_of_a_dask_worker_that_is_killed_run_on_another(tmp_path, monkeypatch):
    distributed = pytest.importorskip("distributed")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sleepy.py").write_text(SLEEPY)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=":")
    scheduler = distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address=None, processes=True
    )
    import sleepy

    said = []

    def say(text):
        said.append(text)
        if len(said) == 4:  # all but the third cell, which waits in one of the workers
            (third,) = tmp_path.glob("3-*")
            os.kill(int(third.name.split("-")[1]), signal.SIGKILL)
            (tmp_path / "go on").touch()

    cells = {f"cell {number}": partial(sleepy.cell, number) for number in range(5)}
    with scheduler:
        outcomes = sweep.run_cells(cells, tmp_path / "runs", say, backend="dask", scheduler=scheduler.scheduler_address)
    assert sorted(outcome.notebook for outcome in outcomes) == list("01234") and all(o.ok for o in outcomes)
    assert len(list(tmp_path.glob("3-*"))) == 2, "it ran again, elsewhere"
    assert all(len(list(tmp_path.glob(f"{number}-*"))) == 1 for number in (0, 1, 2, 4)), "what was finished did not"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["pretrain", "-p", "sede", "1"], "unknown setting 'sede'. Did you mean 'seed'"),
        (["pretrain", "-p", "optimizer", "sgd", "adam"], "unknown optimizer 'adam'. Did you mean 'adamw'"),
        (["finetune", "-p", "seed", "1", "--out", "x"], "--out is for notebooks"),
        (["06_x.ipynb", "-p", "seed", "1", "--preset", "laptop"], "--preset is for sweeps of pretrain"),
        (["06_x.ipynb", "-p", "seed", "1", "--backend", "dsk"], "Did you mean 'dask'"),
        (["06_x.ipynb", "-p", "seed", "1", "--backend", "dask"], "needs the address of a scheduler"),
        (["06_x.ipynb", "-p", "seed", "1", "--backend", "ray"], "needs the package ray"),
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
