"""Files and folders that are written whole or not at all, locks, SHA-256, and JSON that is checked when it is read.

What is being written lies beside its place under a hidden name, is flushed to the disk, and is renamed when complete.
"""

import errno
import hashlib
import json
import os
import platform
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from uuid import uuid4

from filelock import FileLock, Timeout
from safetensors import SafetensorError

from selfie_lite.errors import SelfieLiteError

WRITING, REPLACED = ".writing", ".replaced"
CANNOT_WRITE = {
    errno.EEXIST, errno.ELOOP, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG,
    errno.EIO,
}  # fmt: skip
NO_RENAME = (errno.EXDEV, errno.EBUSY)  # a mount, a file or folder of a container's image


def sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_file(path: Path, content: str | bytes) -> None:
    """Write a small file whole or not at all; text as UTF-8."""
    with whole_file(path) as work:
        work.write_bytes(content.encode() if isinstance(content, str) else content)


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Gives a path to write to; when the block ends, the file there takes the place of `path`. If the block fails,
    `path` stays as it was."""
    path.parent.mkdir(parents=True, exist_ok=True)
    clear_leftovers(path.parent)
    work = _beside(path, WRITING)
    try:
        yield work
        os.chmod(work, _file_mode())
        flush(work)
        try:
            os.replace(work, path)
        except OSError as error:
            if error.errno not in NO_RENAME:
                raise
            shutil.copyfile(work, path)
        flush(path.parent)
    finally:
        work.unlink(missing_ok=True)


@contextmanager
def whole_folder(place: Path, last: str) -> Iterator[Path]:
    """Gives a new folder to fill; when the block ends, it takes the place of the folder `place`, if there is one. If
    the block fails, or is killed, `place` stays as it was, or comes back with the next call of `clear_leftovers`.

    Args:
        last: the file of it that says what the others should be. Where a folder cannot be renamed, its files are
            exchanged one by one, this one first taken away and last put back.
    """
    place.parent.mkdir(parents=True, exist_ok=True)
    clear_leftovers(place.parent)
    work = _beside(place, WRITING)
    work.mkdir()
    try:
        yield work
        for path in work.rglob("*"):
            if path.is_file():
                os.chmod(path, _file_mode())
            flush(path)
        flush(work)
        _move_folder(work, place, last)
        flush(place.parent)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def clear_leftovers(folder: Path) -> None:
    """Remove what killed processes of this machine left half written in `folder`, and put back what they had moved
    aside but not yet replaced."""
    for leftover in folder.glob(".[wr]*-*-*-*"):
        owner, _, name = leftover.name.partition("~")
        kind, _, rest = owner.partition("-")
        host, pid, _ = rest.rsplit("-", 2)
        if kind not in (WRITING, REPLACED) or host != platform.node() or is_running(pid):
            continue
        if kind == REPLACED and not (folder / name).exists():
            os.replace(leftover, folder / name)
        else:
            _remove(leftover)


def flush(path: Path) -> None:
    """Wait until a file or folder is on the disk; a folder only where that can be asked for (not on Windows, nor on
    some network mounts)."""
    with suppress(OSError) if path.is_dir() else nullcontext():
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextmanager
def locked(folder: Path, refusal: str, name: str = ".lock") -> Iterator[None]:
    """Only one process at a time is inside the block for this folder. The lock ends with the process that holds it,
    however that ends. `name` is that of its file, where one folder has several.

    Raises:
        SelfieLiteError: with the sentence `refusal`, if another process is inside.
    """
    lock = FileLock(folder / name)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise SelfieLiteError(refusal) from None
    except NotImplementedError:  # some network mounts have no locks
        yield
        return
    try:
        yield
    finally:
        with suppress(OSError):
            (folder / name).unlink()  # while it is still ours
        lock.release()


Needs = Mapping[str, type | tuple[type, ...]]


def read_json(path: Path, what: str, needs: Needs) -> dict:
    """An object from a JSON file that ours or others wrote.

    Args:
        what: it should be, for the error, "a checkpoint's description" say.
        needs: the keys that it must have, and the type of each value; more may be there.

    Raises:
        SelfieLiteError: if it is not there, no JSON, or of another form.
    """
    return _object(_content(path), str(path), what, needs)


def read_json_lines(path: Path, what: str, needs: Needs) -> list[dict]:
    """The objects of a JSON-lines file, one a line, as `read_json`. A last line without its end, which a killed process
    leaves, is passed over.

    Raises:
        SelfieLiteError: naming the line that is wrong.
    """
    *whole, rest = _content(path).split(b"\n")
    lines = [
        _object(text, f"{path}, line {number},", what, needs) for number, text in enumerate(whole, 1) if text.strip()
    ]
    with suppress(SelfieLiteError):
        lines += [_object(rest, "", what, needs)] if rest.strip() else []
    return lines


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise SelfieLiteError(f"{path} cannot be read ({words_of(error)}).") from None


def _object(text: bytes, where: str, what: str, needs: Needs) -> dict:
    try:
        value = json.loads(text.decode("utf-8"))
        if not isinstance(value, dict):
            raise ValueError(f"it holds {type(value).__name__}, not an object with names.")
        for name, kind in needs.items():
            if name not in value:
                raise ValueError(f"it has no '{name}'.")
            one, kinds = value[name], kind if isinstance(kind, tuple) else (kind,)
            if not isinstance(one, kinds) or (isinstance(one, bool) and bool not in kinds):
                raise ValueError(f"'{name}' is {str(one)[:80]!r}, not {' or '.join(k.__name__ for k in kinds)}.")
        return value
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError and JSONDecodeError too
        raise SelfieLiteError(f"{where} is not {what}, or damaged: {error}") from None


def printable(path: str | bytes | os.PathLike) -> str:
    """A path as text that every terminal and file takes, also where its name is not UTF-8."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def words_of(error: OSError) -> str:
    """What the system said, without Python's number, and of which file."""
    said = (error.strerror or str(error)).lower()
    return f"{printable(error.filename)}: {said}" if isinstance(error.filename, str | bytes | os.PathLike) else said


@contextmanager
def disk_errors_in_words(folder: Path, lost: str) -> Iterator[None]:
    """What fails in the block because `folder` is full or cannot be written ends in a sentence; other errors pass.

    Args:
        lost: one sentence, what was not written and what is still there.
    """
    try:
        yield
    except (OSError, SafetensorError, RuntimeError) as error:
        if is_full(error):
            raise SelfieLiteError(f"the disk of {folder} is full, or a quota is. {lost}") from None
        if isinstance(error, OSError) and error.errno in CANNOT_WRITE:
            raise SelfieLiteError(f"{folder} cannot be written ({words_of(error)}). {lost}") from None
        raise


def is_full(error: BaseException) -> bool:
    """Whether a write failed because the disk, or a quota, has no room; whichever library says so."""
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    words = ("no space left", "quota exceeded", "os error 28)", "os error 122)")  # kept without the system's number
    return isinstance(error, SafetensorError | RuntimeError) and any(text in str(error).lower() for text in words)


def is_running(pid: str) -> bool:
    """Whether there is a process of this number on this machine."""
    with suppress(PermissionError):
        try:
            os.kill(int(pid), 0)
        except (ValueError, OverflowError, ProcessLookupError):
            return False
    return True


def _beside(path: Path, kind: str) -> Path:
    """A hidden name in the same folder, short whatever `path` is called, that says which process it belongs to."""
    return path.with_name(f"{kind}-{platform.node()}-{os.getpid()}-{uuid4().hex[:8]}")


def _file_mode() -> int:
    """What a new file may have here: some libraries make theirs for their owner alone, whatever the umask."""
    umask = os.umask(0)
    os.umask(umask)
    return 0o666 & ~umask


def _move_folder(work: Path, place: Path, last: str) -> None:
    if not (place.is_symlink() or place.exists()):
        os.replace(work, place)
        return
    old = _beside(place, REPLACED)
    old = old.with_name(f"{old.name}~{place.name}")  # a name that clear_leftovers can give back
    try:
        os.replace(place, old)
    except OSError as error:
        if error.errno not in NO_RENAME:
            raise
        _exchange_files(work, place, last)
        return
    try:
        os.replace(work, place)
    except OSError:
        os.replace(old, place)
        raise
    _remove(old)


def _exchange_files(work: Path, place: Path, last: str) -> None:
    (place / last).unlink(missing_ok=True)
    for path in place.iterdir():
        _remove(path)
    for path in sorted(work.iterdir(), key=lambda path: path.name == last):
        shutil.move(path, place / path.name)
        flush(place / path.name)
    flush(place)


def _remove(path: Path) -> None:
    """A file, a link, or a folder with all that is in it, as far as that can be done."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()
