"""The image that is looked at, and the checks of what can be chosen."""

import operator
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from selfie_lite.beliefs import fit_image
from selfie_lite.errors import SelfieLiteError, require_choice
from selfie_lite.inspector.sources import Dataset
from selfie_lite.patches import PatchGrid


@dataclass
class ChosenImage:
    """One image of a data set, by number, by class or at random."""

    data_name: str
    dataset: Dataset
    number: int = 0
    of_class: str | None = None  # None: any
    raw: Tensor = field(default_factory=lambda: torch.empty(0))  # (3, H, W) uint8

    def take(self, number: int, grid: PatchGrid) -> None:
        """The image of this number; the choice of a class ends where it is of another.

        Raises:
            SelfieLiteError: if there is none, it cannot be read, or it is smaller than the model takes.
        """
        self.number = whole_number("image_number", number, len(self.dataset) - 1)
        self.raw, label = self.dataset[self.number]
        fit_image(self.raw, grid)
        if self.of_class != self.dataset.classes[label]:
            self.of_class = None

    def take_class(self, name: str | None, grid: PatchGrid) -> None:
        """The first image of a class; None for any."""
        numbers = self.numbers(name)
        self.of_class = name
        if name is not None:
            self.take(numbers[0], grid)

    def numbers(self, name: str | None) -> Sequence[int]:
        """Of the images of a class."""
        if name is None:
            return range(len(self.dataset))
        require_choice("class", name, self.dataset.classes)
        found = (self.dataset.labels == self.dataset.classes.index(name)).nonzero()[:, 0].tolist()
        if not found:
            raise SelfieLiteError(f"{self.data_name} has no image of the class {name} here.")
        return found


def whole_number(what: str, value: object, high: int, low: int = 0) -> int:
    """`value` as an int, if it is a whole number from `low` to `high`; else SelfieLiteError."""
    try:
        number = operator.index(value)  # type: ignore[arg-type]  # that is what is tried
    except TypeError:
        number = None
    if number is None or isinstance(value, bool) or not low <= number <= high:
        raise SelfieLiteError(f"{what} runs from {low} to {high} here, but is {value!r}.")
    return number


def one_of(what: str, value: int | None, count: int) -> int | None:
    """None, or a number below `count`; else SelfieLiteError."""
    if value is None or (isinstance(value, int) and not isinstance(value, bool) and 0 <= value < count):
        return value
    there = f"there are 0 to {count - 1}" if count else "this model has no attention"
    raise SelfieLiteError(f"{what} {value} is not there: {there}.")


def some_of(items: Iterable) -> str:
    """At most eight by name."""
    words = [str(item) for item in items]
    return ", ".join(words if len(words) <= 8 else [*words[:7], f"and {len(words) - 7} more"])
