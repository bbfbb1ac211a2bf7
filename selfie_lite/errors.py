"""Mistakes that a user can mend, said in one or two sentences."""

import math
from collections.abc import Iterable
from difflib import get_close_matches
from numbers import Integral, Real
from typing import Any


class SelfieLiteError(ValueError):
    """A mistake in what was asked for. The command line prints its message without a traceback."""

    def __init__(self, message: object = ""):
        # a loader's worker process hands an error over with its traceback as the message: keep the last line, ours
        super().__init__(str(message).rsplit(f"{type(self).__module__}.{type(self).__name__}: ", 1)[-1].rstrip("\n"))


class DatasetNotFoundError(SelfieLiteError):
    """A data set that is not on this machine and could not be downloaded."""


class UnreadableImageError(SelfieLiteError):
    """An image file that cannot be decoded, or should not be."""


def require_choice(what: str, value: str, choices: Iterable[str]) -> None:
    """Raise SelfieLiteError, offering the nearest right name, unless `value` is one of `choices`."""
    choices = list(choices)
    if value not in choices:
        raise SelfieLiteError(f"unknown {what} '{value}'.{suggestion(value, choices)}")


def require_number(
    name: str, value: Any, low: float, high: float = math.inf, whole: bool = True, hint: str = ""
) -> None:
    """Raise SelfieLiteError unless `value` is a number from `low` to `high`, a whole one if so asked; True is none."""
    kind = "a whole number" if whole else "a number"
    number: Any = Integral if whole else Real
    if isinstance(value, bool) or not isinstance(value, number):
        raise SelfieLiteError(f"{name} must be {kind}, but is {_shown(value)}.{hint}")
    if not low <= value <= high or value == math.inf:
        limits = f"lie between {low} and {high}" if high < math.inf else f"be {low} or more, and finite"
        raise SelfieLiteError(f"{name} must {limits}, but is {value}.{hint}")


def require_type(name: str, value: Any, kind: type, hint: str = "") -> None:
    """Raise SelfieLiteError, saying what was given, unless `value` is a `kind`."""
    if not isinstance(value, kind):
        article = "an" if kind.__name__[0] in "AEIOU" else "a"
        raise SelfieLiteError(f"{name} must be {article} {kind.__name__}, but is {_shown(value)}.{hint}")


def _shown(value: Any) -> str:
    """A value and its type, short enough for a sentence."""
    text = repr(value) if value is None or isinstance(value, (bool, int, float, str)) else ""
    return f"{text} ({type(value).__name__})" if 0 < len(text) <= 40 else f"of type {type(value).__name__}"


def suggestion(name: str, choices: Iterable[str]) -> str:
    """' Did you mean …?' when something near is among `choices`, else the whole list."""
    choices = [str(choice) for choice in choices]
    by_lower = {choice.lower(): choice for choice in choices}
    near = [by_lower[match] for match in get_close_matches(str(name).lower(), by_lower, n=3, cutoff=0.5)]
    if near:
        return f" Did you mean {' or '.join(repr(n) for n in near)}?"
    return f" Choose from: {', '.join(choices) or 'none'}."
