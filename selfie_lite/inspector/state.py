"""What the inspector looks at, as plain Python: an image, what is hidden of it, one model or two; every rule, and every
refusal. A widget, or a page, shows it and passes on what is asked of it."""

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from selfie_lite.beliefs import Beliefs, fit_image, look
from selfie_lite.errors import SelfieLiteError, require_choice, require_number
from selfie_lite.inspector.sources import Dataset, History, Sources
from selfie_lite.patches import PatchGrid, sample_masks
from selfie_lite.selfie import Selfie

VIEWS = ["play", "guess", "puzzle", "matrix", "attention"]
GIVEN = ("your model", "your other model", "your data")  # what has no name; in code a variable
SETTINGS = ("model", "step", "compare", "data", "image_number", "image_class", "num_masked", "masked", "seed", "view",
            "location", "block", "head")  # fmt: skip
ACTIONS = ("random_image", "next_puzzle", "toggle")
MAX_SEED = 10**9


class InspectorState:
    """One image, which patches of it are hidden, what is asked about it, and of which model, or of which two.

    `set` changes one of SETTINGS, `do` does one of ACTIONS; what cannot be is a SelfieLiteError, and then everything
    is as it was. Arguments: those of `PatchInspector`.
    """

    image_number: int
    masked: list[int] = []
    label: str
    raw: Tensor  # (3, H, W) uint8, the image as it is in its data set

    def __init__(
        self,
        model: str | Path | Selfie = "additive",
        dataset: str | Path | Dataset = "sample",
        *,
        step: int | None = None,
        image_number: int = 0,
        seed: int = 0,
        **wanted: Any,
    ):
        self.sources, self._random = Sources(), random.Random(seed)
        self._looked: tuple[Tensor | None, tuple, list[tuple[str, Beliefs]]] = (None, (), [])
        self.models = [self.sources.model(model, GIVEN[0])]  # by name, at every step that there is; one or two
        self.data_name, self.dataset = self.sources.dataset(dataset, GIVEN[2])
        self.image_class: str | None = None  # None: any
        self.step = self.steps[-1] if step is None else step
        self.view, self.location, self.seed = "play", -1, seed
        self.block: int | None = None
        self.head: int | None = None
        self._check_step()
        self._set_image_number(image_number)
        self._set_seed(seed)
        for name in ("view", "masked", "compare", "location", "block", "head"):
            if wanted.get(name) is not None:
                self._change(name, wanted[name])
        self._check()
        self.look()

    @property
    def steps(self) -> list[int]:
        return list(self.models[0][1])

    @property
    def model(self) -> Selfie:
        return self.models[0][1][self.step]

    @property
    def grid(self) -> PatchGrid:
        return self.model.grid

    def look(self) -> list[tuple[str, Beliefs]]:
        """What each model believes, by its name. They are asked once, and again when something has changed."""
        asked = [(name, of[max(of) if i else self.step]) for i, (name, of) in enumerate(self.models)]
        about = (asked, self.masked, self.seed)
        if self._looked[0] is not self.raw or self._looked[1] != about:
            threads = torch.get_num_threads()
            torch.set_num_threads(1)  # enough for one image, and quick beside a training run
            try:
                found = [look(model, self.raw, self.masked, self.seed) for _, model in asked]
            finally:
                torch.set_num_threads(threads)
            names = [name for name, _ in asked]
            if len(names) > 1 and names[0] == names[1]:  # two checkpoints of one run
                names = [f"{names[0]}, step {self.step}", f"{names[1]}, the newest step"]
            self._looked = self.raw, about, list(zip(names, found, strict=True))
        return self._looked[2]

    # What is asked for

    def set(self, name: str, value: Any) -> None:
        """Change one of SETTINGS."""
        require_choice("setting", name, SETTINGS)
        with self._whole_or_not_at_all():
            self._change(name, value)

    def do(self, name: str, *values: int) -> None:
        """Do one of ACTIONS."""
        require_choice("action", name, ACTIONS)
        with self._whole_or_not_at_all():
            getattr(self, f"_{name}")(*values)

    def upload(self, name: str, content: bytes) -> None:
        """Show an image file that came through the browser."""
        with self._whole_or_not_at_all():
            self.data_name, self.dataset = self.sources.upload(name, content)
            self._set_image_number(0)
            self.look()
            self.sources.keep(self.data_name, self.dataset)

    @contextmanager
    def _whole_or_not_at_all(self) -> Iterator[None]:
        before, given = self.__dict__ | {"models": list(self.models)}, dict(self.sources.given)
        try:
            yield
            self._check()
            self.look()
        except BaseException:
            self.__dict__, self.sources.given = before, given
            raise

    def _change(self, name: str, value: Any) -> None:
        change = getattr(self, f"_set_{name}", None)
        change(value) if change else setattr(self, name, value)

    def _check(self) -> None:
        """What must hold after every change; if it does not, the change is taken back."""
        self._check_step()
        require_choice("view", self.view, VIEWS)
        if self.location not in self.masked:
            raise SelfieLiteError(f"location {self.location} is not hidden; hidden are {_some_of(self.masked)}.")
        for name, history in self.models:
            if self.view == "attention" and not next(iter(history.values())).has_attention:
                raise SelfieLiteError(f"{name} has no attention to show: it pools by mean or max, or not at all.")
        for name in ("block", "head"):
            if (number := getattr(self, name)) is not None:
                require_number(name, number, 0)
        if self.block is not None or self.head is not None:
            self.look()[0][1].attention_from(None, self.block, self.head)

    def _check_step(self) -> None:
        if self.step not in self.steps:
            raise SelfieLiteError(f"no checkpoint of step {self.step}; there are: {_some_of(self.steps)}.")

    # Settings that change others too

    def _set_model(self, name: str | Path | Selfie) -> None:
        before = self.grid
        self.models[0] = self.sources.model(name, GIVEN[0])
        self.step, self.block, self.head = self.steps[-1], None, None
        _require_one_grid(self.models)
        if self.grid != before:
            fit_image(self.raw, self.grid)
            self._hide(self._draw_masks(self.model.num_masked))
        if self.view == "attention" and not self.model.has_attention:
            self.view = "guess"

    def _set_compare(self, name: str | Path | Selfie | None) -> None:
        self.models[1:] = [] if name is None else [self.sources.model(name, GIVEN[1])]
        _require_one_grid(self.models)

    def _set_data(self, name: str | Path | Dataset) -> None:
        self.data_name, self.dataset = self.sources.dataset(name, GIVEN[2])
        self.image_class = None
        self._set_image_number(0)

    def _set_image_number(self, number: int) -> None:
        require_number("image_number", number, 0, len(self.dataset) - 1)
        self.image_number = number
        self.raw, label = self.dataset[self.image_number]
        self.label = self.dataset.classes[label]
        fit_image(self.raw, self.grid)
        if self.image_class != self.label:
            self.image_class = None

    def _set_image_class(self, name: str | None) -> None:
        self.image_class = name
        if name is not None:
            self._set_image_number(_numbers(self)[0])

    def _set_num_masked(self, count: int) -> None:
        require_number("num_masked", count, 1, self.grid.count - 1)
        self._hide(self._draw_masks(count))

    def _set_masked(self, masked: list[int]) -> None:
        self._hide(look(self.model, self.raw, masked).masked.tolist())

    def _set_seed(self, seed: int) -> None:
        require_number("seed", seed, 0, MAX_SEED)
        self.seed = seed
        self._hide(self._draw_masks(len(self.masked) or self.model.num_masked))

    def _draw_masks(self, count: int) -> list[int]:
        return sample_masks(1, self.grid, count, torch.Generator().manual_seed(self.seed))[1][0].tolist()

    def _hide(self, masked: list[int]) -> None:
        self.masked = masked
        self.location = self.location if self.location in masked else masked[0]

    # Actions

    def _random_image(self) -> None:
        self._set_image_number(self._random.choice(_numbers(self)))

    def _next_puzzle(self) -> None:
        self._random_image()
        self._set_seed((self.seed + 1) % (MAX_SEED + 1))

    def _toggle(self, location: int) -> None:
        """Hide a patch, or show it."""
        require_number("location", location, 0, self.grid.count - 1)
        masked = sorted({*self.masked} ^ {location})
        if not 1 <= len(masked) < self.grid.count:
            raise SelfieLiteError("Something must be hidden, and something must stay visible.")
        self._hide(masked)
        self.location = location if location in masked else self.location


def _numbers(state: InspectorState) -> Sequence[int]:
    """Of the images of the chosen class."""
    if state.image_class is None:
        return range(len(state.dataset))
    require_choice("class", state.image_class, state.dataset.classes)
    found = (state.dataset.labels == state.dataset.classes.index(state.image_class)).nonzero()[:, 0].tolist()
    if not found:
        raise SelfieLiteError(f"{state.data_name} has no image of the class {state.image_class} here.")
    return found


def _require_one_grid(models: list[tuple[str, History]]) -> None:
    grids = [(name, next(iter(history.values())).grid) for name, history in models]
    if grids[0][1] != grids[-1][1]:
        said = [
            f"{name} cuts {grid.image_size}×{grid.image_size} pixels into {grid.side}×{grid.side} patches"
            for name, grid in grids
        ]
        raise SelfieLiteError(f"{', '.join(said)}: they cannot share one mask.")


def _some_of(items: Sequence[int]) -> str:
    """At most eight."""
    words = [str(item) for item in items]
    return ", ".join(words if len(words) <= 8 else [*words[:7], f"and {len(words) - 7} more"])
