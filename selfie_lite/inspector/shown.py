"""What is to be seen of a state: the board, the pictures, the words, the code. Values, text and PNG: no widget."""

import gc
import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from matplotlib.figure import Figure
from PIL import Image

from selfie_lite.beliefs import Beliefs
from selfie_lite.inspector.state import GIVEN, InspectorState
from selfie_lite.patches import patchify, unpatchify
from selfie_lite.workbook import figures


@dataclass
class Cell:
    """A location on the board."""

    text: str
    state: str  # "visible", "hidden" or "placed"
    shows: int | None  # whose patch is seen there: a location
    asked: bool


@dataclass
class Picture:
    """What one model believes."""

    name: str
    png: bytes
    words: str


def board(state: InspectorState) -> list[Cell]:
    """Every location, as it is to be seen now."""
    beliefs, play, cells = state.look()[0][1], state.view == "play", []
    for at in range(state.grid.count):
        placed = state.play.placed.get(at) if play else None
        cell = Cell(f"{at}", "visible", at, asked=at == state.location)
        if placed is not None:
            mark = (" ✓" if state.masked[placed] == at else " ✗") if state.play.checked else ""
            cell.text, cell.state = f"{at}={beliefs.letter(placed)}{mark}", "placed"
            cell.shows = state.masked[placed]
        elif at in state.masked:
            cell.text, cell.state, cell.shows = f"{at} ?", "hidden", None
        cells.append(cell)
    return cells


def pictures(state: InspectorState) -> list[Picture]:
    """The present view, one picture a model; none in play."""
    looked = state.look() if state.view != "play" else []
    with _freed_at_once():
        return [Picture(name, *_picture(state, name, beliefs)) for name, beliefs in looked]


def to_png(state: InspectorState) -> bytes:
    """The pictures of the present view, side by side; in play, the image with the patches placed so far."""
    if state.view == "play":
        return _played(state)
    return side_by_side([picture.png for picture in pictures(state)])


def side_by_side(pngs: list[bytes]) -> bytes:
    """Pictures in one."""
    parts = [Image.open(io.BytesIO(png)) for png in pngs]
    whole = Image.new("RGB", (sum(part.width for part in parts), max(part.height for part in parts)), "white")
    for i, part in enumerate(parts):
        whole.paste(part, (sum(before.width for before in parts[:i]), 0))
    buffer = io.BytesIO()
    whole.save(buffer, "PNG")
    return buffer.getvalue()


def code(state: InspectorState) -> str:
    """The call that rebuilds the state. What was not given by name stands in it as a variable."""
    settings = {
        "compare": state.models[1][0] if len(state.models) > 1 else None,
        "step": state.step if len(state.steps) > 1 else None,
        "image_number": state.image.number,
        "masked": state.masked,
        "location": state.location,
        "view": state.view,
        "block": state.block,
        "head": state.head,
        "seed": state.seed,
    }

    def value_of(value: object) -> str:
        return value.replace(" ", "_") if value in GIVEN and value in state.sources.given else repr(value)

    words = [f"{name}={value_of(value)}" for name, value in settings.items() if value is not None]
    return f"PatchInspector({', '.join([value_of(state.models[0][0]), value_of(state.image.data_name), *words])})"


def _played(state: InspectorState) -> bytes:
    grid, placed = state.grid, state.play.placed
    patches = patchify(state.look()[0][1].image[None], grid)
    filled, at = patches.clone(), list(placed)
    filled[0, at] = patches[0, [state.masked[candidate] for candidate in placed.values()]]
    empty = [hidden for hidden in state.masked if hidden not in placed]
    with _freed_at_once():
        return figures.to_png(figures.draw_grid(unpatchify(filled, grid)[0], grid, empty))


def _picture(state: InspectorState, name: str, beliefs: Beliefs) -> tuple[bytes, str]:
    figure, words = _draw(state, beliefs)
    if len(state.models) > 1:  # which of the two
        figure.suptitle(name, fontsize=10, weight="bold")
    same = (state.view, len(state.models), len(state.masked), state.grid)
    return figures.to_png(figure, same, dpi=110 if state.view == "attention" else 80), words


def _draw(state: InspectorState, beliefs: Beliefs) -> tuple[Figure, str]:
    at, whole, masked, seen = state.location, len(state.models) == 1, beliefs.masked, (beliefs.image, beliefs.grid)
    if state.view == "matrix":
        return figures.draw_logits(beliefs.logits, *seen, masked, whole=False), beliefs.describe_logits()
    if state.view == "puzzle":
        return figures.draw_puzzle(*seen, masked, beliefs.logits, whole), beliefs.describe_puzzle()
    if state.view == "attention" and beliefs.attention is not None:
        has_mask_tokens = beliefs.attention.shape[2] > 1
        who = f"mask token of location {at}" if has_mask_tokens else "u0"
        weights = beliefs.attention_from(at if has_mask_tokens else None, state.block, state.head)
        figure = figures.draw_attention(*seen, beliefs.visible, masked, weights[None], [who], 1)
        return figure, beliefs.describe_attention(weights, f"The {who}" if has_mask_tokens else who)
    return figures.draw_guess(beliefs, at, whole), beliefs.describe_guess(at)


@contextmanager
def _freed_at_once() -> Iterator[None]:
    """Figures are full of cycles, and ten of them left to Python's collector make it look through everything that is
    loaded, a third of a second long: free them as soon as they are drawn."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()
        gc.collect(0)
