"""The patch inspector as a widget: it tells the board what the state has become, and the state what is asked of it."""

import base64
import json
import weakref
from pathlib import Path
from typing import Any

import anywidget
from IPython import get_ipython
from traitlets import Dict, Int, Unicode, observe

from selfie_lite.data.datasets import ImageDataset, ImageFiles
from selfie_lite.errors import SelfieLiteError
from selfie_lite.files import words_of, write_file
from selfie_lite.inspector import messages
from selfie_lite.inspector.state import InspectorState
from selfie_lite.selfie import Selfie

STILL = "application/vnd.selfie-lite.board"  # JSON in an output, of which `workbook.pages` makes a board


class PatchInspector(anywidget.AnyWidget):
    """Put hidden patches back, and see what a model believes belongs there, and why.

    `set(seed=3, view="matrix")` changes what is shown, `code()` gives the two lines that rebuild it; a mistake in the
    widget is told there in one sentence. A cell that is run again closes the inspectors that it made before; `close()`
    does so at once.

    Args:
        model: "additive" or "mask_token" (bundled), a run (its checkpoints get a slider), a checkpoint's folder, or a
            `Selfie`, which is set to evaluation mode.
        dataset: name or folder as in `load_dataset` (its test part, where there is one), an image file, or a data set.
        compare: a second model beside the first, on the same image and mask; as `model`.
        step: which checkpoint of a run; default the newest.
        image_number: which image of the data set, from 0.
        masked: locations to hide; default: as many as the model was trained with, drawn with `seed`.
        location: the hidden location that is asked about; default the first.
        view: "play", or of what the model believes "guess", "puzzle", "matrix" or "attention".
        block, head: which attention is shown, from 0; None for the mean.
        seed: of the masks, and of the order of the candidates.
        puzzles: how many a web page of the notebook holds, where no kernel answers; this one is the first.

    Raises:
        SelfieLiteError: for a model, data set, image or location that does not exist or does not fit.
    """

    _esm, _css = (Path(__file__).with_name(name) for name in ("board.js", "board.css"))
    puzzle, first, second = Dict().tag(sync=True), Dict().tag(sync=True), Dict().tag(sync=True)
    chosen, lists = Dict().tag(sync=True), Dict().tag(sync=True)
    shown, played = Dict().tag(sync=True), Dict().tag(sync=True)  # the board changes these two
    lines, message, turn = Unicode().tag(sync=True), Unicode().tag(sync=True), Int().tag(sync=True)

    def __init__(
        self,
        model: str | Path | Selfie = "additive",
        dataset: str | Path | ImageDataset | ImageFiles = "sample",
        *,
        compare: str | Path | Selfie | None = None,
        step: int | None = None,
        image_number: int = 0,
        masked: list[int] | None = None,
        location: int | None = None,
        view: str = "play",
        block: int | None = None,
        head: int | None = None,
        seed: int = 0,
        puzzles: int = 1,
    ):
        self.state = InspectorState(
            model, dataset, compare=compare, step=step, image_number=image_number, masked=masked, location=location,
            view=view, block=block, head=head, seed=seed,
        )  # fmt: skip
        self._puzzles = puzzles
        self._told: list | None = None
        super().__init__(**self._news())
        self.on_msg(self._asked)
        _close_those_of_the_last_run_of_this_cell(self)

    def set(self, **settings: Any) -> None:
        """Change what is shown; arguments as of the class, and num_masked, image_class, data (the data set).

        Raises:
            SelfieLiteError: for what cannot be; all before it is done.
        """
        try:
            for name, value in settings.items():
                self.state.set(name, value)
        finally:
            self._show()

    def code(self) -> str:
        """The two lines of Python that rebuild the present view. A model or data set that was not given by name stands
        in them as the variable your_model, your_other_model or your_data, an uploaded image as the name of its file."""
        return messages.code(self.state)

    def __repr__(self) -> str:
        return self.code().splitlines()[1]

    def _repr_mimebundle_(self, **kwargs: Any) -> tuple[dict, dict]:
        found: Any = super()._repr_mimebundle_(**kwargs) or {}
        data, about = found if isinstance(found, tuple) else (found, {})
        words = " ".join(f"{name}: {beliefs.describe_puzzle()}" for name, beliefs in self.state.look())
        data["text/plain"] = repr(self)
        data["image/png"] = base64.b64encode(self.to_png()).decode()  # for places where no widget runs
        data[STILL] = json.dumps(messages.still(self.state, self._puzzles))
        return data, about | {"image/png": {"alt": f"A patch puzzle. {words}"}}

    def to_png(self) -> bytes:
        """The pictures of the present view, side by side; in play, the image with the patches placed so far."""
        placed = self.played.get("placed", {}) if self.played.get("id") == self.puzzle["id"] else {}
        return messages.to_png(self.state, {int(at): candidate for at, candidate in placed.items()})

    def save(self, path: str | Path | None = None) -> Path:
        """Write the present view as PNG; default: a file in runs/inspector/ named after what it shows.

        Raises:
            SelfieLiteError: if it cannot be written there.
        """
        path = Path("runs/inspector") / self._file_name() if path is None else Path(path)
        try:
            write_file(path, self.to_png())
        except OSError as error:
            raise SelfieLiteError(f"{path} could not be written ({words_of(error)}).") from None
        return path

    def close(self) -> None:
        """Take the widget away, in the page and in the kernel."""
        if self.comm is not None:
            self.layout.close()
            super().close()

    def _file_name(self) -> str:
        return f"{Path(self.state.data_name).stem}-{self.state.image_number}-{self.state.view}.png"

    def _news(self) -> dict[str, Any]:
        """The traits, as the state is; what has not changed is not sent again."""
        looked = self.state.look()
        told = messages.controls(self.state) | {"lines": self.code(), "message": "", "turn": self.turn + 1}
        if looked is not self._told:
            first, second = [*(messages.beliefs(*one) for one in looked), {}][:2]
            told |= {"puzzle": messages.puzzle(self.state), "first": first, "second": second}
            self._told = looked
        return told

    def _show(self, message: str = "") -> None:
        with self.hold_sync():
            for name, value in (self._news() | {"message": message}).items():
                setattr(self, name, value)

    def _asked(self, _: Any, wish: dict, buffers: list) -> None:
        """By the board: one setting, one action, a file, or the picture."""
        message = ""
        try:
            if "set" in wish:
                self.state.set(*wish["set"])
            elif "do" in wish:
                self.state.do(*wish["do"])
            elif "upload" in wish:
                self.state.upload(wish["upload"], bytes(buffers[0]))
            else:
                self.send({"save": self._file_name()}, [self.to_png()])
        except (SelfieLiteError, OSError) as error:
            message = str(error)
        self._show(message)

    @observe("shown")
    def _looked_at(self, change: Any) -> None:
        for name, value in change["new"].items():
            if value != getattr(self.state, name):
                try:
                    self.state.set(name, value)
                except SelfieLiteError:  # asked of the puzzle before this one
                    return self._show()
        self.lines = self.code()


_BY_CELL: dict[str, tuple[str, weakref.WeakSet]] = {}  # a cell: its last execution, and what that made


def _close_those_of_the_last_run_of_this_cell(inspector: PatchInspector) -> None:
    parent: dict = getattr(get_ipython(), "get_parent", dict)() or {}
    cell, execution = (parent.get("metadata") or {}).get("cellId"), (parent.get("header") or {}).get("msg_id", "")
    if not cell:  # not in a notebook, or in one that does not say which cell it is
        return
    last, made = _BY_CELL.get(cell, ("", weakref.WeakSet()))
    if last != execution:
        for earlier in list(made):
            earlier.close()
        made = weakref.WeakSet()
    made.add(inspector)
    _BY_CELL[cell] = execution, made
