"""The folder of a run: whose it is, and what is resumed from it."""

import json
import shutil
import sys

import pytest
from runs import assert_same, stop_after, weights_of, workplace  # noqa: F401
from tiny import config, make_data

from selfie_lite import SelfieLiteError
from selfie_lite.training.checkpoint import (
    CheckpointError,
    list_checkpoints,
)
from selfie_lite.training.config import RUNS
from selfie_lite.training.pretrain import pretrain
from selfie_lite.training.run import read_metrics


def test_another_configuration_is_refused_with_the_fields_that_differ():
    pretrain(config())
    with pytest.raises(
        CheckpointError, match="learning_rate is 0.001 there and 0.002 here; seed is 3 there and 4 here"
    ):
        pretrain(config(resume="newest", seed=4, learning_rate=0.002))
    with pytest.raises(SelfieLiteError, match="already holds a run.*--resume newest"):
        pretrain(config())
    with pytest.raises(CheckpointError, match="there is no checkpoint in"):
        pretrain(config(name="other", resume="newest"))


def test_a_folder_that_is_no_run_is_left_alone():
    RUNS.joinpath("tiny").mkdir(parents=True)
    (RUNS / "tiny" / "README.md").write_text("mine")
    with pytest.raises(SelfieLiteError, match="is there already and is no run.*another --name"):
        pretrain(config())
    assert [path.name for path in (RUNS / "tiny").iterdir()] == ["README.md"]


def test_a_second_run_of_one_name_is_refused_while_the_first_goes_on():
    refused = []

    def second(lines):
        if not refused:
            with pytest.raises(SelfieLiteError, match="is in use.*another --name"):
                pretrain(config(seed=4))
            refused.append(True)

    folder = pretrain(config(), on_log=second)
    assert refused and json.loads((folder / "config.json").read_text())["seed"] == 3
    assert len(read_metrics(folder)) == 7


def test_resume_of_a_run_that_has_ended_has_no_checkpoint_yet_or_never_began(capsys):
    with pytest.raises(CheckpointError, match="there is no checkpoint in .* no run 'tiny' yet"):
        pretrain(config(resume="newest"))
    folder = pretrain(config())
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    pretrain(config(resume="newest"))
    assert "has ended already, after 12 steps" in capsys.readouterr().out
    assert before == {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    end = weights_of(folder)
    shutil.rmtree(folder / "checkpoint")
    (folder / "metrics.jsonl").write_text('{"step": 3, "loss": 1.0}\n')
    pretrain(config(resume="newest"))
    assert_same(end, weights_of(folder))


def test_going_back_and_stopping_keeps_metrics_and_events_once():
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder = pretrain(config(eval_every=0))
    pretrain(config(eval_every=0, resume="4"), on_log=stop_after(6))
    assert [line["step"] for line in read_metrics(folder)] == [3, 6]
    assert int(list_checkpoints(folder / "checkpoint")[-1].name) == 6
    pretrain(config(eval_every=0, resume="newest"))
    assert [line["step"] for line in read_metrics(folder)] == [3, 6, 9, 12, 12]
    assert len(list((folder / "tensorboard").iterdir())) == 1
    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    assert [event.step for event in events.Scalars("loss")] == [3, 6, 9, 12]
    assert [event.step for event in events.Scalars("held_out_accuracy")] == [12]


def test_other_images_than_those_a_run_began_with_are_refused(tmp_path):

    pretrain(config(), on_log=stop_after(6))
    make_data(tmp_path / "other", count=50)
    with pytest.raises(CheckpointError, match="the images of tiny have changed.*48 images then and 50 now"):
        pretrain(config(resume="newest"))


def test_a_folder_that_is_deleted_under_way_is_made_again():
    def delete(lines):
        if lines[-1]["step"] == 3:
            shutil.rmtree(RUNS / "tiny")

    folder = pretrain(config(), on_log=delete)
    assert len(read_metrics(folder)) == 7 and (folder / "config.json").is_file()


def test_a_report_that_cannot_be_written_fails_no_run(monkeypatch, capsys):
    def broken(*args):
        raise OSError("no font")

    monkeypatch.setattr(sys.modules["selfie_lite.training.pretrain"], "write_report", broken)
    folder = pretrain(config(steps=1))
    assert "has no report (no font); everything else is there" in capsys.readouterr().err
    assert len(list_checkpoints(folder / "checkpoint")) == 1
