"""Mistakes that a user can mend, said in one or two sentences."""

from collections.abc import Iterable
from difflib import get_close_matches


class SelfieLiteError(ValueError):
    """A mistake in what was asked for. The command line prints its message without a traceback."""


class DatasetNotFoundError(SelfieLiteError):
    """A data set that is not on this machine and could not be downloaded."""


class UnreadableImageError(SelfieLiteError):
    """An image file that cannot be decoded, or should not be."""


def require_choice(what: str, value: str, choices: Iterable[str]) -> None:
    """Raise SelfieLiteError, offering the nearest right name, unless `value` is one of `choices`."""
    choices = list(choices)
    if value not in choices:
        raise SelfieLiteError(f"unknown {what} '{value}'.{suggestion(value, choices)}")


def suggestion(name: str, choices: Iterable[str]) -> str:
    """' Did you mean …?' when something near is among `choices`, else the whole list."""
    choices = [str(choice) for choice in choices]
    by_lower = {choice.lower(): choice for choice in choices}
    near = [by_lower[match] for match in get_close_matches(str(name).lower(), by_lower, n=3, cutoff=0.5)]
    if near:
        return f" Did you mean {' or '.join(repr(n) for n in near)}?"
    return f" Choose from: {', '.join(choices) or 'none'}."
