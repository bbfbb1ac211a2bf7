"""What the inspector shows, as plain Python: what is chosen, hidden, asked, placed and scored; every rule, and every
refusal. Widgets, or a page, show it and pass on what is asked of it."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from copy import copy
from pathlib import Path
from typing import Any

import torch

from selfie_lite.beliefs import fit_image, look
from selfie_lite.errors import SelfieLiteError, require_choice
from selfie_lite.inspector.choice import ChosenImage, one_of, some_of, whole_number
from selfie_lite.inspector.play import Play
from selfie_lite.inspector.puzzle import Puzzle, grid_of
from selfie_lite.inspector.sources import Dataset, History, Sources
from selfie_lite.patches import sample_masks
from selfie_lite.selfie import Selfie

VIEWS = ["guess", "matrix", "attention", "puzzle", "play"]
ASK, HIDE = "ask about it", "hide or show it"
GIVEN = ("your model", "your other model", "your data")  # what has no name; in code a variable
SETTINGS = ("model", "step", "compare", "data", "image_number", "image_class", "num_masked", "masked", "seed", "view",
            "location", "block", "head", "press")  # fmt: skip
ACTIONS = ("random_image", "press_location", "place", "check", "next_puzzle")
MAX_SEED = 10**9


class InspectorState(Puzzle):
    """One image, which patches of it are hidden, what is asked about it, and of which model, or of which two.

    `set` changes one of SETTINGS, `do` does one of ACTIONS; what cannot be is a SelfieLiteError, and then everything
    is as it was. Arguments: those of `PatchInspector`.
    """

    def __init__(
        self,
        model: str | Path | Selfie = "additive",
        dataset: str | Path | Dataset = "sample",
        *,
        compare: str | Path | Selfie | None = None,
        step: int | None = None,
        image_number: int = 0,
        masked: list[int] | None = None,
        location: int | None = None,
        view: str = "guess",
        block: int | None = None,
        head: int | None = None,
        seed: int = 0,
    ):
        require_choice("view", view, VIEWS)
        self.sources, self.play, self._random = Sources(), Play(), random.Random(seed)
        self.models = [self.sources.model(model, GIVEN[0])]  # or two
        self.image = ChosenImage(*self.sources.dataset(dataset, GIVEN[2]))
        self.step, self.seed, self.location = self.steps[-1], whole_number("seed", seed, MAX_SEED), -1
        self.view, self.press = "guess", ASK
        self.block: int | None = None
        self.head: int | None = None
        if step is not None:
            self._set_step(step)
        self._set_image_number(image_number)
        self._hide(self._draw_masks(self.model.num_masked))
        wanted = {"masked": masked, "compare": compare, "location": location, "block": block, "head": head}
        for name, value in (wanted | {"view": view}).items():
            if value is not None:
                getattr(self, f"_set_{name}")(value)
        self.look()

    # What is asked for

    def set(self, name: str, value: Any) -> None:
        """Change one of SETTINGS."""
        require_choice("setting", name, SETTINGS)
        with self._whole_or_not_at_all():
            getattr(self, f"_set_{name}")(value)

    def do(self, name: str, *values: int) -> None:
        """Do one of ACTIONS."""
        require_choice("action", name, ACTIONS)
        with self._whole_or_not_at_all():
            getattr(self, f"_{name}")(*values)

    def upload(self, name: str, content: bytes) -> None:
        """Show an image file that came through the browser."""
        with self._whole_or_not_at_all():
            name, dataset = self.sources.upload(name, content)
            self.image = ChosenImage(name, dataset)
            self._set_image_number(0)
            self.look()
            self.sources.keep(name, dataset)

    @contextmanager
    def _whole_or_not_at_all(self) -> Iterator[None]:
        before = self.__dict__ | {"models": list(self.models), "play": self.play.copy(), "image": copy(self.image)}
        try:
            yield
            self.look()
        except BaseException:
            self.__dict__ = before
            raise

    # Settings. Each is followed by a look, and taken back if that fails.

    def _set_model(self, name: str | Path | Selfie) -> None:
        before = self.grid
        self.models[0] = self.sources.model(name, GIVEN[0])
        _require_one_grid(self.models)
        self.step = self.steps[-1]
        blocks, heads = self.attention_size
        self.block = self.block if self.block is not None and self.block < blocks else None
        self.head = self.head if self.head is not None and self.head < heads else None
        if not blocks and self.view == "attention":
            self.view = "guess"
        if self.grid != before:
            fit_image(self.image.raw, self.grid)
            self._hide(self._draw_masks(self.model.num_masked))

    def _set_step(self, step: int) -> None:
        if step not in self.steps:
            raise SelfieLiteError(f"no checkpoint of step {step}; there are: {some_of(self.steps)}.")
        self.step = step

    def _set_compare(self, name: str | Path | Selfie | None) -> None:
        self.models[1:] = [] if name is None else [self.sources.model(name, GIVEN[1])]
        _require_one_grid(self.models)
        self._set_view(self.view)

    def _set_data(self, name: str | Path | Dataset) -> None:
        self.image = ChosenImage(*self.sources.dataset(name, GIVEN[2]))
        self._set_image_number(0)

    def _set_image_number(self, number: int) -> None:
        self.image.take(number, self.grid)

    def _set_image_class(self, name: str | None) -> None:
        self.image.take_class(name, self.grid)

    def _set_num_masked(self, count: int) -> None:
        self._hide(self._draw_masks(whole_number("num_masked", count, self.grid.count - 1, 1)))

    def _set_masked(self, masked: list[int]) -> None:
        self._hide(look(self.model, self.image.raw, masked).masked.tolist())

    def _set_seed(self, seed: int) -> None:
        self.seed = whole_number("seed", seed, MAX_SEED)
        self._hide(self._draw_masks(len(self.masked)))

    def _set_view(self, view: str) -> None:
        require_choice("view", view, VIEWS)
        for name, history in self.models:
            if view == "attention" and not next(iter(history.values())).has_attention:
                raise SelfieLiteError(f"{name} has no attention to show: it pools by mean or max, or not at all.")
        self.view = view

    def _set_location(self, location: int) -> None:
        if location not in self.masked:
            raise SelfieLiteError(f"location {location} is not hidden; hidden are {some_of(self.masked)}.")
        self.location = location

    def _set_block(self, block: int | None) -> None:
        self.block = one_of("block", block, self.attention_size[0])

    def _set_head(self, head: int | None) -> None:
        self.head = one_of("head", head, self.attention_size[1])

    def _set_press(self, press: str) -> None:
        require_choice("way to press", press, (ASK, HIDE))
        self.press = press

    def _draw_masks(self, count: int) -> list[int]:
        return sample_masks(1, self.grid, count, torch.Generator().manual_seed(self.seed))[1][0].tolist()

    def _hide(self, masked: list[int]) -> None:
        self.masked = masked
        self.location = self.location if self.location in masked else masked[0]

    # Actions

    def _random_image(self) -> None:
        self.image.take(self._random.choice(self.image.numbers(self.image.of_class)), self.grid)

    def _press_location(self, location: int) -> None:
        whole_number("location", location, self.grid.count - 1)
        if self.view != "play" and self.press == HIDE:
            masked = sorted({*self.masked} ^ {location})
            if not 1 <= len(masked) < self.grid.count:
                raise SelfieLiteError("Something must be hidden, and something must stay visible.")
            self._hide(masked)
            self.location = location if location in masked else self.location
        elif location in self.masked:
            self.location = location
        else:
            raise SelfieLiteError(
                f"Location {location} is visible: press a hidden one (hatched), or choose “{HIDE}” first."
            )

    def _place(self, place: int) -> None:
        self.play.place(self.location, self.order[whole_number("candidate", place, len(self.masked) - 1)])
        if not self.play.checked and self.play.left:
            self.location = self.play.left[0]

    def _check(self) -> None:
        self.play.check(self.look())

    def _next_puzzle(self) -> None:
        self._random_image()
        self._set_seed((self.seed + 1) % (MAX_SEED + 1))


def _require_one_grid(models: list[tuple[str, History]]) -> None:
    if len(models) > 1 and grid_of(models[0][1]) != grid_of(models[1][1]):
        said = [
            f"{name} cuts {grid.image_size}×{grid.image_size} pixels into {grid.side}×{grid.side} patches"
            for name, grid in ((name, grid_of(history)) for name, history in models)
        ]
        raise SelfieLiteError(f"{', '.join(said)}: they cannot share one mask.")
