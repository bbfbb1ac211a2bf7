"""Checkpoints: whole, checked, and no more than wanted."""

import errno
import os
from pathlib import Path

import pytest
import torch
from runs import workplace  # noqa: F401
from safetensors import SafetensorError
from tiny import config

from selfie_lite import SelfieLiteError
from selfie_lite.training.checkpoint import (
    CheckpointError,
    find_checkpoint,
    list_checkpoints,
    load_checkpoint,
    save_checkpoint,
)
from selfie_lite.training.pretrain import pretrain


def test_a_damaged_newest_checkpoint_is_named_and_the_one_before_only_offered():
    folder = pretrain(config())
    file = folder / "checkpoint" / "00000012" / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(CheckpointError, match="00000012 is damaged .model.safetensors is not what.*--resume 8"):
        pretrain(config(resume="newest"))
    with pytest.raises(CheckpointError, match="no checkpoint of step '7' .* there are: 4, 8, 12"):
        pretrain(config(resume="7"))
    pretrain(config(resume="8"))
    assert find_checkpoint(folder / "checkpoint").name == "00000012"


@pytest.mark.parametrize(
    "full",
    [OSError(errno.ENOSPC, "No space left on device"), OSError(errno.EDQUOT, "Disk quota exceeded"),
     SafetensorError("I/O error: Disk quota exceeded (os error 122)")],
)  # fmt: skip
def test_a_full_disk_or_quota_loses_no_earlier_checkpoint(full, monkeypatch):
    from selfie_lite.training import checkpoint

    save = checkpoint.save_file

    def full_at_step_8(tensors, path):
        if len(list_checkpoints(path.parent.parent)) == 1:
            raise full
        save(tensors, path)

    monkeypatch.setattr(checkpoint, "save_file", full_at_step_8)
    with pytest.raises(SelfieLiteError, match="full.* The checkpoint of step 8 was not written.*00000004. Make room"):
        pretrain(config())
    assert [path.name for path in Path("runs/tiny/checkpoint").iterdir()] == ["00000004"]
    monkeypatch.undo()


def save(folder, step, **more):
    state = {"step": step, "processes": 1, "optimizer": {}}
    return save_checkpoint(folder, step, {"w": torch.zeros(2)}, state, {"name": "x"}, **({"keep": 2} | more))


def test_what_is_kept_does_not_depend_on_where_a_run_was_stopped(tmp_path):
    for step in (4, 5, 8, 10, 12, 16):
        save(tmp_path, step, every=4)
        assert list_checkpoints(tmp_path)[-1].name == f"{step:08d}"
    assert [int(path.name) for path in list_checkpoints(tmp_path)] == [12, 16]
    save(tmp_path, 13, every=4)
    assert [int(path.name) for path in list_checkpoints(tmp_path)] == [12, 13], "the run has gone back"


def test_checkpoints_have_the_rights_that_the_umask_gives(tmp_path):
    before = os.umask(0o022)
    try:
        place = save(tmp_path / "checkpoint", 1)
    finally:
        os.umask(before)
    assert place.stat().st_mode & 0o777 == 0o755
    assert {path.stat().st_mode & 0o777 for path in place.iterdir()} == {0o644}


def test_a_checkpoint_of_another_form_is_told_and_no_code_of_it_is_run(tmp_path):
    place = save(tmp_path, 1)
    torch.save({"step": "one"}, place / "state.pt")
    with pytest.raises(CheckpointError, match="state.pt is not of a training run"):
        load_checkpoint(place)
    torch.save(os.system, place / "state.pt")
    with pytest.raises(CheckpointError, match="state.pt holds more than plain values"):
        load_checkpoint(place)
    (place / "checkpoint.json").write_text("[1]")
    with pytest.raises(CheckpointError, match="is damaged .checkpoint.json cannot be read"):
        find_checkpoint(tmp_path)
