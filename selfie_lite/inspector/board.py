"""The board: the grid of patches, and in play the candidates, as buttons. It shows a state and passes on presses."""

import base64
import io
from collections.abc import Callable
from functools import partial

import ipywidgets as widgets
from PIL import Image

from selfie_lite.inspector.shown import board
from selfie_lite.inspector.state import InspectorState

HATCHED = (
    "background: repeating-linear-gradient(135deg, #ddd 0 5px, #888 5px 6px) !important; "
    "color: black !important; text-shadow: 0 0 3px white, 0 0 3px white;"
)


class Board:
    """Patches are the buttons' backgrounds: one picture in the style sheet, moved to the place of each.

    Args:
        name: a class of the widget that the board is in, so that its style is its own.
        do: told what is pressed, an action of the state and its number.
    """

    def __init__(self, name: str, do: Callable):
        self.name, self.do = name, do
        self.patches = widgets.GridBox()
        self.candidates = widgets.HBox(layout={"flex_flow": "row wrap"})
        self.style_sheet = widgets.HTML()

    def show(self, state: InspectorState) -> None:
        size = "52px" if state.grid.side < 6 else "40px"
        if len(self.patches.children) != state.grid.count:
            self._fill(self.patches, state.grid.count, size, "at", "press_location")
            self.patches.layout.grid_template_columns = f"repeat({state.grid.side}, {size})"
        if len(self.candidates.children) != len(state.masked):  # else kept, and so is the keyboard's focus
            self._fill(self.candidates, len(state.masked), "52px", "candidate", "place")
        beliefs, rules = state.look()[0][1], self._common_rules(state)
        for at, (button, cell) in enumerate(zip(self.patches.children, board(state), strict=True)):
            button.description = ("▸" if cell.asked and cell.state != "visible" else "") + cell.text
            button.tooltip = f"location {at}: {cell.state}"
            look_of = HATCHED if cell.shows is None else self._patch(cell.shows, state.grid.side)
            frame = "4px #E69F00" if cell.asked else "0.5px white"
            rules.append(f".{self.name} .at-{at} {{ {look_of} box-shadow: inset 0 0 0 {frame} !important; }}")
        for place, (button, candidate) in enumerate(zip(self.candidates.children, state.order, strict=True)):
            button.description = beliefs.letter(candidate)
            button.tooltip = f"candidate {button.description}: press to place it at the chosen location"
            patch = self._patch(state.masked[candidate], state.grid.side)
            rules.append(f".{self.name} .candidate-{place} {{ {patch} }}")
        self.style_sheet.value = f"<style>{' '.join(rules)}</style>"

    def _fill(self, box: widgets.Box, count: int, size: str, kind: str, action: str) -> None:
        buttons = list(box.children[:count])
        for number in range(len(buttons), count):
            button = widgets.Button(layout={"height": size, "padding": "0"})
            button.add_class("patch").add_class(f"{kind}-{number}")
            button.on_click(partial(self._pressed, action, number))
            buttons.append(button)
        for button in buttons:
            button.layout.width = button.layout.height = size
            button.layout.margin = "0" if kind == "at" else None
        left, box.children = box.children[count:], buttons
        for button in left:
            close(button)

    def _pressed(self, action: str, number: int, _button: widgets.Button) -> None:
        self.do(action, number)

    def _common_rules(self, state: InspectorState) -> list[str]:
        buffer, here = io.BytesIO(), f".{self.name}"
        Image.fromarray(state.look()[0][1].image.permute(1, 2, 0).numpy()).save(buffer, "PNG")
        url = f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
        return [
            f"{here} {{ --image: url({url}); }}",
            f"{here} .patch {{ image-rendering: pixelated; font-weight: bold; }}",
            f"{here} button:focus-visible {{ outline: 3px solid #0072B2 !important; z-index: 1; }}",
            f"{here} [role=alert] {{ border-left: 4px solid #D55E00; padding-left: 8px; }}",
            f"{here} p {{ line-height: 1.4; }}",
        ]

    @staticmethod
    def _patch(of: int, side: int) -> str:
        row, column = divmod(of, side)
        return (
            f"background: var(--image) {100 * column / (side - 1):.2f}% {100 * row / (side - 1):.2f}% / {side}00% "
            "!important; color: white !important; text-shadow: 0 0 3px black, 0 0 3px black;"
        )


def close(widget: widgets.Widget) -> None:
    """A widget, and all that is in it: ipywidgets closes each one alone."""
    for part in (*getattr(widget, "children", ()), getattr(widget, "style", None), getattr(widget, "layout", None)):
        if isinstance(part, widgets.Widget):
            close(part)
    widgets.Widget.close(widget)
