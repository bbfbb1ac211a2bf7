"""Written whole or not at all, whatever happens, and readable for whom the umask says."""

import errno
import os
import platform
import subprocess
import sys

import pytest
from safetensors import SafetensorError

from selfie_lite import SelfieLiteError, files


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_whole_or_as_it_was(tmp_path):
    place = tmp_path / "new" / "a.txt"
    files.write_file(place, "one é")
    assert place.read_bytes() == "one é".encode() and names(place.parent) == ["a.txt"]
    with pytest.raises(KeyboardInterrupt), files.whole_file(place) as work:
        work.write_text("half")
        raise KeyboardInterrupt
    assert place.read_text(encoding="utf-8") == "one é" and names(place.parent) == ["a.txt"]


def test_a_folder_takes_the_place_of_another_whole_or_not_at_all(tmp_path):
    place = tmp_path / "set"
    for text in ("one", "two"):
        with files.whole_folder(place, "last") as work:
            (work / "last").write_text(text)
            (work / text).write_text(text)
    assert names(place) == ["last", "two"] and names(tmp_path) == ["set"]
    with pytest.raises(KeyboardInterrupt), files.whole_folder(place, "last") as work:
        (work / "last").write_text("three")
        raise KeyboardInterrupt
    assert (place / "last").read_text() == "two" and names(tmp_path) == ["set"]


@pytest.mark.parametrize("number", [errno.EXDEV, errno.EBUSY])
def test_where_a_folder_cannot_be_renamed_its_files_are_exchanged(tmp_path, monkeypatch, number):
    place = tmp_path / "set"
    place.mkdir()
    (place / "old").write_text("old")
    plain = os.replace

    def replace(source, target):
        if os.path.isdir(source) and str(source) == str(place):
            raise OSError(number, os.strerror(number))
        plain(source, target)

    monkeypatch.setattr(os, "replace", replace)
    with files.whole_folder(place, "last") as work:
        (work / "last").write_text("new")
    assert names(place) == ["last"] and names(tmp_path) == ["set"]


def test_a_file_that_is_a_mount_is_written_in_place(tmp_path, monkeypatch):
    place = tmp_path / "a.txt"
    place.write_text("old")

    def busy(source, target):
        raise OSError(errno.EBUSY, "busy")

    monkeypatch.setattr(os, "replace", busy)
    files.write_file(place, "new")
    assert place.read_text() == "new" and names(tmp_path) == ["a.txt"]


def test_what_killed_processes_left_is_cleared_or_put_back(tmp_path):
    dead = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True)
    host, pid = platform.node(), dead.stdout.strip()
    (tmp_path / f".writing-{host}-{pid}-01").mkdir()
    (tmp_path / f".writing-{host}-{pid}-02").write_text("half")
    (tmp_path / f".replaced-{host}-{pid}-03~set-a").mkdir()
    (tmp_path / f".replaced-{host}-{pid}-03~set-a" / "last").write_text("whole")
    kept = [f".writing-{host}-{os.getpid()}-04", f".writing-elsewhere-{pid}-05", ".writing-mine", ".reports-a-b-c"]
    for name in kept:
        (tmp_path / name).mkdir()
    files.clear_leftovers(tmp_path)
    assert names(tmp_path) == sorted([*kept, "set-a"]) and (tmp_path / "set-a" / "last").read_text() == "whole"


def test_modes_follow_the_umask(tmp_path):
    old = os.umask(0o027)
    try:
        with files.whole_folder(tmp_path / "set", "last") as work:
            (work / "last").touch(mode=0o600)
        files.write_file(tmp_path / "a.txt", "text")
    finally:
        os.umask(old)
    modes = [(tmp_path / name).stat().st_mode & 0o777 for name in ("set", "set/last", "a.txt")]
    assert modes == [0o750, 0o640, 0o640]


def test_a_folder_that_cannot_be_flushed_is_no_error(tmp_path, monkeypatch):
    plain = os.fsync

    def fsync(descriptor):
        if os.path.isdir(f"/proc/self/fd/{descriptor}"):
            raise OSError(errno.EINVAL, "not here")
        plain(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    with files.whole_folder(tmp_path / "set", "last") as work:
        (work / "last").write_text("new")
    assert (tmp_path / "set" / "last").read_text() == "new"


def test_one_process_at_a_time(tmp_path):
    code = (
        "import sys, pathlib; from selfie_lite import files\nwith files.locked(pathlib.Path(sys.argv[1]), 'in use'): "
    )
    with files.locked(tmp_path, "in use"):
        other = subprocess.run([sys.executable, "-c", code + "pass", tmp_path], capture_output=True, text=True)
        assert "SelfieLiteError: in use" in other.stderr
    killed = code + "import os; os.kill(os.getpid(), 9)"
    assert subprocess.run([sys.executable, "-c", killed, tmp_path]).returncode == -9
    with files.locked(tmp_path, "in use"):
        pass


@pytest.mark.parametrize(
    ("error", "full"),
    [
        (OSError(errno.ENOSPC, "x"), True),
        (OSError(errno.EDQUOT, "x"), True),
        (SafetensorError("Error while serializing: IoError(Os { code: 28, message: No space left on device })"), True),
        (RuntimeError("unexpected pos: [enforce fail] Disk quota exceeded"), True),
        (OSError(errno.EACCES, "no space left for you"), False),
        (RuntimeError("out of range"), False),
    ],
)
def test_whichever_library_says_that_the_disk_is_full(error, full):
    assert files.is_full(error) is full


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"[1]", "list"), (b"{", "damaged"), (b"\xff{}", "damaged"), (b'{"a": 1}', "no 'b'"),
        (b'{"a": "1", "b": "x"}', "'a' is '1', not int or float"), (b'{"a": true, "b": "x"}', "'a' is 'True'"),
        (b"[" * 100_000, "damaged"),
    ],
)  # fmt: skip
def test_json_of_another_form_is_told_in_one_sentence(tmp_path, content, said):
    needs = {"a": (int, float), "b": str}
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(SelfieLiteError, match=said):
        files.read_json(tmp_path / "a.json", "a result", needs)
    (tmp_path / "a.jsonl").write_bytes(b'{"a": 1, "b": "x"}\n' + content + b"\n")
    with pytest.raises(SelfieLiteError, match="line 2"):
        files.read_json_lines(tmp_path / "a.jsonl", "a result", needs)
    with pytest.raises(SelfieLiteError, match="no such file"):
        files.read_json(tmp_path / "none.json", "a result", needs)


def test_json_lines_whose_end_a_killed_process_did_not_write(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(b'{"a": 1}\n\n{"a": 2}\n{"a"')
    assert files.read_json_lines(tmp_path / "a.jsonl", "a result", {"a": int}) == [{"a": 1}, {"a": 2}]


@pytest.mark.parametrize(
    ("number", "said"), [(errno.EDQUOT, "full, or a quota"), (errno.EROFS, "cannot be written"), (errno.EINVAL, None)]
)
def test_disk_errors_end_in_a_sentence(tmp_path, number, said):
    with pytest.raises(SelfieLiteError if said else OSError, match=said), files.disk_errors_in_words(tmp_path, "Lost."):
        raise OSError(number, os.strerror(number), "x")
