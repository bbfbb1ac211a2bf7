"""Checks for the exercises of the workbook."""

from collections.abc import Callable
from typing import Any


def check(name: str, answer: Any, is_right: Callable[[Any], Any], hint: str) -> None:
    """Say whether an answer is right, and give a hint if it is not; never raises.

    Args:
        name: what the exercise is called, for the printed line.
        answer: the reader's, or None if there is none yet.
        is_right: takes the answer, gives something true or false; an exception counts as false.
        hint: one sentence.
    """
    if answer is None:
        print(f"{name}: not answered yet. A hint comes with a wrong answer.")
        return
    try:
        right, said = bool(is_right(answer)), ""
    except Exception as error:  # the reader's code may fail in any way, and should be told how
        right, said = False, f" ({type(error).__name__}: {error})"
    print(f"{name}: right!" if right else f"{name}: not yet{said}. Hint: {hint}")
