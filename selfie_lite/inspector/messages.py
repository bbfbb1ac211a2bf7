"""What is told of a state: messages, from which the board draws everything; the code that rebuilds it; a picture for
places where nothing runs. Values, text and PNG: no widget."""

import base64
import io
import random
import zlib
from copy import copy
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import functional as tv

from selfie_lite.beliefs import Beliefs
from selfie_lite.inspector.state import GIVEN, MAX_SEED, InspectorState
from selfie_lite.patches import patchify, unpatchify
from selfie_lite.workbook import figures

CROP = 256  # pixels, of the picture that shows what is cut off


def puzzle(state: InspectorState) -> dict[str, Any]:
    """The image, what is hidden of it, and in which order the candidates lie; the same for every model."""
    beliefs = state.look()[0][1]
    number = f", image {state.image_number}" if len(state.dataset) > 1 else ""
    pixels = zlib.crc32(beliefs.image.numpy().tobytes())
    return {
        "id": f"{state.data_name} {state.image_number} {pixels} {state.masked} {state.seed}",
        "title": f"{state.data_name}{number} ({state.label})",
        "image": _data_url(beliefs.image),
        "side": state.grid.side,
        "masked": state.masked,
        "order": beliefs.order.tolist(),
        "crop": _crop(state.raw, state.grid.image_size),
    }


def beliefs(name: str, found: Beliefs) -> dict[str, Any]:
    """What one model makes of it: a row a hole, a column a candidate, by where it belongs."""
    return {
        "name": name,
        "probabilities": [[round(chance, 4) for chance in row] for row in found.probabilities.tolist()],
        "choices": found.choices.tolist(),
        "assigned": found.assigned.tolist(),
        "right": found.right,
        "right_once": int((found.assigned == torch.arange(len(found.masked))).sum()),
        "words": {
            "guess": [found.describe_guess(location) for location in found.masked.tolist()],
            "puzzle": found.describe_puzzle(),
            "matrix": found.describe_logits(),
        },
        "attention": None if found.attention is None else _pack(found.attention),
    }


def controls(state: InspectorState) -> dict[str, dict[str, Any]]:
    """What is chosen now, of what can be; and what the board changes by itself."""
    names = [name for name, _ in state.models]
    return {
        "chosen": {
            "model": names[0], "compare": names[1] if len(names) > 1 else None, "data": state.data_name,
            "num_masked": len(state.masked), **_of(state, "step", "image_number", "image_class", "seed"),
        },
        "lists": {
            "model": state.sources.model_names(), "data": state.sources.data_names(),
            "classes": list(dict.fromkeys(state.dataset.classes)), "steps": state.steps, "images": len(state.dataset),
            "patches": state.grid.count - 1, "seeds": MAX_SEED,
        },
        "shown": _of(state, "view", "location", "block", "head"),
    }  # fmt: skip


def _of(state: InspectorState, *names: str) -> dict[str, Any]:
    return {name: getattr(state, name) for name in names}


def still(state: InspectorState, count: int) -> dict[str, Any]:
    """All that a page needs to show the board without Python: this puzzle, and more with other images and holes."""
    state = copy(state)
    state.models, state._random = list(state.models), random.Random(state.seed)  # its own
    page, puzzles = {"shown": controls(state)["shown"], "played": {}}, []
    for _ in range(count):
        found = [beliefs(name, one) for name, one in state.look()]
        puzzles.append({"puzzle": puzzle(state), "models": {one["name"]: one for one in found}, "code": code(state)})
        state.do("next_puzzle")
    first, *second = puzzles[0]["models"]
    chosen = {"model": first, "compare": second[0] if second else None, "image_number": 0}
    return page | {"puzzles": puzzles, "chosen": chosen, "lists": {"model": [first, *second], "images": count}}


def code(state: InspectorState) -> str:
    """The two lines that rebuild the state. What was not given by name stands in them as a variable."""
    settings: dict[str, Any] = {"compare": state.models[1][0] if len(state.models) > 1 else None}
    settings |= {"step": state.step} if len(state.steps) > 1 else {}
    settings |= _of(state, "image_number", "masked", "location", "view", "block", "head", "seed")

    def value_of(value: object) -> str:
        return value.replace(" ", "_") if value in GIVEN and value in state.sources.given else repr(value)

    words = [value_of(state.models[0][0]), value_of(state.data_name)]
    words += [f"{name}={value_of(value)}" for name, value in settings.items() if value is not None]
    return f"from selfie_lite.inspector import PatchInspector\nPatchInspector({', '.join(words)})"


def to_png(state: InspectorState, placed: dict[int, int]) -> bytes:
    """The present view, a picture a model side by side; in play, the image with the patches placed so far.

    placed: {location: candidate}
    """
    if state.view == "play":
        return figures.to_png(_draw_play(state, placed))
    parts = []
    for name, found in state.look():
        figure = _draw(state, found)
        if len(state.models) > 1:  # which of the two
            figure.suptitle(name, fontsize=10, weight="bold")
        parts.append(Image.open(io.BytesIO(figures.to_png(figure, dpi=110 if state.view == "attention" else 80))))
    whole = Image.new("RGB", (sum(part.width for part in parts), max(part.height for part in parts)), "white")
    for i, part in enumerate(parts):
        whole.paste(part, (sum(before.width for before in parts[:i]), 0))
    return _png(whole)


def _draw(state: InspectorState, found: Beliefs) -> Figure:
    at, whole, masked, seen = state.location, len(state.models) == 1, found.masked, (found.image, found.grid)
    if state.view == "matrix":
        return figures.draw_logits(found.logits, *seen, masked, whole=False)
    if state.view == "puzzle":
        return figures.draw_puzzle(*seen, masked, found.logits, whole)
    if state.view == "attention" and found.attention is not None:
        has_mask_tokens = found.attention.shape[2] > 1
        weights = found.attention_from(at if has_mask_tokens else None, state.block, state.head)
        who = f"mask token of location {at}" if has_mask_tokens else "u0"
        return figures.draw_attention(*seen, found.visible, masked, weights[None], [who], 1)
    return figures.draw_guess(found, at, whole)


def _draw_play(state: InspectorState, placed: dict[int, int]) -> Figure:
    patches = patchify(state.look()[0][1].image[None], state.grid)
    filled = patches.clone()
    for at, candidate in placed.items():
        filled[0, at] = patches[0, state.masked[candidate]]
    empty = [at for at in state.masked if at not in placed]
    title = f"{len(state.masked)} patches are cut out: what belongs where?"
    return figures.draw_grid(unpatchify(filled, state.grid)[0], state.grid, empty, title=title)


def _pack(attention: Tensor) -> dict[str, Any]:
    """(blocks, heads, rows, V) → (1 + blocks, 1 + heads, rows, V), each first the mean of the rest, 16 bits each."""
    attention = torch.cat([attention.mean(dim=1, keepdim=True), attention], dim=1)
    attention = torch.cat([attention.mean(dim=0, keepdim=True), attention])
    numbers = (attention.clamp(0, 1) * 65535).round().numpy().astype("<u2")
    return {"shape": list(numbers.shape), "weights": base64.b64encode(numbers.tobytes()).decode()}


def _crop(image: Tensor, size: int) -> dict[str, Any] | None:
    """Where the image had another shape or size: all of it, and the square that is looked at, in percent."""
    height, width = image.shape[-2:]
    if height == width == size:
        return None
    square = min(height, width)
    cut = "" if height == width else "cut to the square in its middle and "
    small = tv.resize(image, [max(1, round(side * CROP / max(height, width))) for side in (height, width)])
    return {
        "image": _data_url(small, "JPEG"),
        "left": 50 * (1 - square / width), "width": 100 * square / width,
        "top": 50 * (1 - square / height), "height": 100 * square / height,
        "words": f"{width}×{height} pixels, {cut}shrunk to {size}×{size}, which this model takes.",
    }  # fmt: skip


def _data_url(image: Tensor, kind: str = "PNG") -> str:
    pixels = Image.fromarray(np.ascontiguousarray(image.permute(1, 2, 0).numpy()))
    return f"data:image/{kind.lower()};base64,{base64.b64encode(_png(pixels, kind)).decode()}"


def _png(image: Image.Image, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()
