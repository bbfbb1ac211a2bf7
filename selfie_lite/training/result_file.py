"""Files of results, one a line, that fine-tuning runs append to: tried before any work, and never what is not ours."""

import json
import os
from pathlib import Path

from selfie_lite.errors import SelfieLiteError
from selfie_lite.files import read_json_lines, words_of

# What every result of a fine-tuning run has.
RESULT: dict[str, type | tuple[type, ...]] = {"config": dict, "validation_accuracy": (int, float)}


def require_own_lines(file: Path) -> None:
    """Refuse, before any work, a path that `append_line` could not write, or that holds something else than results of
    fine-tuning runs.

    Raises:
        SelfieLiteError: saying which of these it is.
    """
    if _require_writable(file):
        try:
            read_json_lines(file, "the result of a fine-tuning run", RESULT)
        except SelfieLiteError as error:
            raise SelfieLiteError(f"{error} Results are not appended to such a file: name another.") from None
        text = file.read_bytes()
        if text and b"\n" not in text and not _is_json(text):
            raise SelfieLiteError(f"{file} holds no results of fine-tuning runs: name another file.")


def append_line(file: Path, result: dict) -> None:
    """Append a result to a file of them, as one line; one that is there already, from the same settings with the same
    accuracies, is not written twice.

    Raises:
        SelfieLiteError, OSError: if that is not possible; the file stays as it was.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.exists():
        require_own_lines(file)
        if any(_same(other, result) for other in read_json_lines(file, "a result", RESULT)):
            return
        _end_last_line(file)
    with open(file, "ab", buffering=0) as opened:  # one write, so that two runs do not mix their lines
        opened.write(json.dumps(result).encode() + b"\n")


def _same(one: dict, two: dict) -> bool:
    return all(one.get(name) == two.get(name) for name in ("config", "test_accuracy", "validation_accuracy"))


def _end_last_line(file: Path) -> None:
    """A last line without its end is ended, or taken away if a killed process left but half of it."""
    with open(file, "r+b") as opened:
        text = opened.read()
        whole, _, rest = text.rpartition(b"\n")
        if rest and _is_json(rest):
            opened.write(b"\n")
        elif rest:
            opened.truncate(len(text) - len(rest))


def _is_json(text: bytes) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except ValueError:
        return False


def _require_writable(file: Path) -> bool:
    """Whether there is such a file; refuses what could not be written."""
    try:
        there = file.exists() or file.is_symlink()
        nearest = next(folder for folder in file.absolute().parents if folder.exists())
    except (OSError, ValueError) as error:
        words = words_of(error) if isinstance(error, OSError) else error
        raise SelfieLiteError(f"'{file}' cannot be a file ({words}).") from None
    if there and not file.is_file():
        raise SelfieLiteError(f"{file} is {'a folder' if file.is_dir() else 'no regular file'}: name a file.")
    if not nearest.is_dir():
        raise SelfieLiteError(f"{file} cannot be written: {nearest} is a file, not a folder.")
    if not os.access(nearest, os.W_OK | os.X_OK) or there and not os.access(file, os.W_OK):
        raise SelfieLiteError(f"{file} cannot be written: there is no permission, or the disk is read-only.")
    return there
