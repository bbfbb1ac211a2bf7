"""The inspector's controls, and which setting of the state each of them is."""

from collections.abc import Callable
from functools import partial
from typing import Any

import ipywidgets as widgets

from selfie_lite.inspector.state import ASK, HIDE, MAX_SEED, VIEWS, InspectorState

NONE = object()  # stands in a list for None: ipywidgets shows an empty list where that is chosen
ANY = NOTHING = NONE  # no text, for a class or a run may have any name
WIDE = {"style": {"description_width": "94px"}, "layout": {"width": "260px"}}
HALF = {"layout": {"width": "126px"}}


class Controls:
    """Args: told what a person asked for: `set` (setting, value), `do` (action), `upload` (name, content), `save`."""

    def __init__(self, set: Callable, do: Callable, upload: Callable, save: Callable):  # noqa: A002
        self._told_of_upload = upload
        self.model_name = widgets.Dropdown(description="model", **WIDE)
        self.step = widgets.SelectionSlider(options=[0], description="after step", **WIDE)
        self.compare_name = widgets.Dropdown(description="compare with", **WIDE)
        self.data = widgets.Dropdown(description="images", **WIDE)
        self.image_number = widgets.BoundedIntText(description="number", max=10**9, **WIDE)
        self.image_class = widgets.Dropdown(description="class", **WIDE)
        self.num_masked = widgets.IntSlider(min=1, max=10**6, description="hidden", **WIDE)
        self.seed = widgets.BoundedIntText(max=MAX_SEED, description="seed", **WIDE)
        self.press = widgets.ToggleButtons(options=[ASK, HIDE], description="press a patch to", style=_buttons(120))
        self.view = widgets.ToggleButtons(options=VIEWS, description="view", style=_buttons(80))
        self.location = widgets.Dropdown(description="location", **WIDE)
        self.block = widgets.Dropdown(description="block", **WIDE)
        self.head = widgets.Dropdown(description="head", **WIDE)
        self.random_image = widgets.Button(description="random image", **HALF)
        self.check = widgets.Button(description="check", button_style="success", **HALF)
        self.next_puzzle = widgets.Button(description="next puzzle", **HALF)
        self.save_button = widgets.Button(description="save as PNG", **HALF)
        self.upload = widgets.FileUpload(
            accept="image/*", description="your own", **HALF,
            tooltip="an image file; Jupyter by itself takes 10 MB at most, a larger one is opened by its path",
        )  # fmt: skip
        self.settings = {
            "model": self.model_name, "step": self.step, "compare": self.compare_name, "data": self.data,
            "image_number": self.image_number, "image_class": self.image_class, "num_masked": self.num_masked,
            "seed": self.seed, "press": self.press, "view": self.view, "location": self.location, "block": self.block,
            "head": self.head,
        }  # fmt: skip
        for name, control in self.settings.items():
            control.observe(partial(self._changed, set, name), names="value")
        for action in ("random_image", "check", "next_puzzle"):
            getattr(self, action).on_click(partial(self._pressed, do, action))
        self.save_button.on_click(partial(self._pressed, save))
        self.upload.observe(self._uploaded, names="value")

    def show(self, state: InspectorState) -> None:
        """What can be chosen, and what is."""
        second = state.models[1][0] if len(state.models) > 1 else None
        models = state.sources.model_names()
        _choose(self.model_name, models, state.models[0][0])
        _choose(self.compare_name, [("nothing", NOTHING), *((name, name) for name in models)], second)
        _choose(self.step, state.steps, state.step)
        self.step.layout.display = "" if len(state.steps) > 1 else "none"
        _choose(self.data, state.sources.data_names(), state.image.data_name)
        classes = dict.fromkeys(state.image.dataset.classes)
        _choose(self.image_class, [("any class", ANY), *((name, name) for name in classes)], state.image.of_class)
        _choose(self.location, state.masked, state.location)
        for control, count, value in zip(
            (self.block, self.head), state.attention_size, (state.block, state.head), strict=True
        ):
            _choose(control, [("mean", NONE), *((str(i), i) for i in range(count))], value)
        for control, high, value in (
            (self.image_number, len(state.image.dataset) - 1, state.image.number),
            (self.num_masked, state.grid.count - 1, len(state.masked)),
        ):
            control.max = max(high, control.value)  # the old value may be beyond the new end
            control.value, control.max = value, high
        self.seed.value, self.view.value, self.press.value = state.seed, state.view, state.press
        self.press.layout.visibility = "hidden" if state.view == "play" else "visible"  # pressing means placing

    @staticmethod
    def _changed(told: Callable, name: str, change: Any) -> None:
        told(name, None if change["new"] is NONE else change["new"])

    @staticmethod
    def _pressed(told: Callable, *words: Any) -> None:
        told(*words[:-1])  # but not the button

    def _uploaded(self, change: Any) -> None:
        if files := change["new"]:
            self.upload.value = ()
            self._told_of_upload(files[0]["name"], bytes(files[0]["content"]))


def _choose(control: Any, options: list, value: Any) -> None:
    if list(control.options) != list(options):
        control.options = options
    control.value = NONE if value is None else value


def _buttons(width: int) -> dict[str, str]:
    return {"description_width": "initial", "button_width": f"{width}px"}
