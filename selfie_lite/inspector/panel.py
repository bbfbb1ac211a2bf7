"""The patch inspector as a widget: controls that pass on what is asked of the state, and show what it has become."""

import base64
import html
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import ipywidgets as widgets
from IPython import get_ipython

from selfie_lite.data.datasets import ImageDataset, ImageFiles
from selfie_lite.errors import SelfieLiteError
from selfie_lite.files import words_of, write_file
from selfie_lite.inspector import shown
from selfie_lite.inspector.board import Board, close
from selfie_lite.inspector.controls import Controls
from selfie_lite.inspector.state import InspectorState
from selfie_lite.selfie import Selfie


class PatchInspector(widgets.VBox):
    """Choose an image, hide patches, and see what a model believes belongs there, and why.

    Every control is a core widget and reachable by keyboard; under every picture stands in words what it shows; a
    mistake is told in one sentence in the widget. `code()` gives the two lines that rebuild what is seen. A cell that
    is run again closes the inspectors that it made before; `close()` does so at once.

    Args:
        model: "additive" or "mask_token" (bundled), a run (its checkpoints get a slider), a checkpoint's folder, or a
            `Selfie`, which is set to evaluation mode.
        dataset: name or folder as in `load_dataset` (its test part, where there is one), an image file, or a data set.
        compare: a second model beside the first, on the same image and mask; as `model`.
        step: which checkpoint of a run; default the newest.
        image_number: which image of the data set, from 0.
        masked: locations to hide; default: as many as the model was trained with, drawn with `seed`.
        location: the hidden location that is asked about; default the first.
        view: "guess", "matrix", "attention", "puzzle" or "play".
        block, head: which attention is shown, from 0; None for the mean.
        seed: of the masks, and of the order of the candidates.

    Raises:
        SelfieLiteError: for a model, data set, image or location that does not exist or does not fit.
    """

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
        view: str = "guess",
        block: int | None = None,
        head: int | None = None,
        seed: int = 0,
    ):
        self.state = InspectorState(
            model, dataset, compare=compare, step=step, image_number=image_number, masked=masked, location=location,
            view=view, block=block, head=head, seed=seed,
        )  # fmt: skip
        self.renders, self._quiet, self._id = 0, False, f"inspector-{uuid4().hex[:8]}"
        self.message = widgets.HTML()
        self.pictures = [widgets.Image(format="png", layout={"max_width": "100%", "margin": "0"}) for _ in range(2)]
        self.words = [widgets.HTML() for _ in range(2)]
        self.play_words = widgets.HTML()
        self.source_code = widgets.Textarea(description="rebuild", rows=3, layout={"width": "97%"})
        self._board = Board(self._id, self._do)
        self._controls = Controls(self._set, self._do, self._upload, self._say_where_saved)
        super().__init__(self._arrange())
        self.add_class(self._id)
        self._show()
        _close_those_of_the_last_run_of_this_cell(self)

    def __getattr__(self, name: str) -> Any:
        """A control, or what the state says, by its name."""
        if not name.startswith("_") and "_controls" in self.__dict__:
            for part in (self._controls, self.state, self.state.image, self.state.play):
                if hasattr(part, name):
                    return getattr(part, name)
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    # What is seen

    def code(self) -> str:
        """The two lines of Python that rebuild the present view. A model or data set that was not given by name stands
        in them as the variable your_model, your_other_model or your_data, an uploaded image as the name of its file."""
        return f"from selfie_lite.inspector import PatchInspector\n{self!r}"

    def __repr__(self) -> str:
        return shown.code(self.state)

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, str]:
        bundle = super()._repr_mimebundle_(**kwargs)
        bundle["text/plain"] = repr(self)
        bundle["image/png"] = base64.b64encode(self.to_png()).decode()  # for places where no widget runs
        return bundle

    def to_png(self) -> bytes:
        """The pictures of the present view, side by side; in play, the image with the patches placed so far."""
        if self.state.view == "play":
            return shown.to_png(self.state)
        return shown.side_by_side([picture.value for picture in self.pictures[: len(self.state.models)]])

    def save(self, path: str | Path | None = None) -> Path:
        """Write the present view as PNG; default: a file in runs/inspector/ named after what it shows.

        Raises:
            SelfieLiteError: if it cannot be written there.
        """
        image = self.state.image
        name = f"{Path(image.data_name).stem}-{image.number}-{self.state.view}.png"
        path = Path("runs/inspector") / name if path is None else Path(path)
        try:
            write_file(path, self.to_png())
        except OSError as error:
            raise SelfieLiteError(f"{path} could not be written ({words_of(error)}).") from None
        return path

    def close(self) -> None:
        """Take this widget and every one in it away, in the page and in the kernel."""
        if self.comm is not None:
            close(self)

    # Passing on

    def _try(self, act: Callable, *values: Any) -> None:
        if self._quiet:
            return
        try:
            said = act(*values)
        except (SelfieLiteError, OSError) as error:
            said = str(error)
            self._show_controls()  # as they were
        else:
            self._show()
        self._say(said or "")

    def _set(self, name: str, value: Any) -> None:
        self._try(self.state.set, name, value)

    def _do(self, name: str, *values: int) -> None:
        self._try(self.state.do, name, *values)

    def _upload(self, name: str, content: bytes) -> None:
        self._try(self.state.upload, name, content)

    def _say_where_saved(self) -> None:
        self._try(lambda: f"Saved: {self.save()}")

    def _say(self, text: str) -> None:
        self.message.value = f'<div role="alert">{html.escape(text)}</div>' if text else ""

    # Showing

    def _show(self) -> None:
        two = len(self.state.models) > 1
        for picture, image, words in zip(shown.pictures(self.state), self.pictures, self.words, strict=False):
            image.value = picture.png
            words.value = f"<p><b>{html.escape(picture.name)}</b>: {html.escape(picture.words)}</p>"
        play, view = self.state.view == "play", self.state.view
        self.picture_box.children[1].layout.display = "" if two else "none"
        self.picture_box.layout.display = "none" if play else ""
        self.play_box.layout.display = "" if play else "none"
        self.attention_box.layout.display = "" if view == "attention" else "none"
        self._board.show(self.state)
        said = self.state.play.describe(self.state.location, self.state.look())
        self.play_words.value = f"<p>{html.escape(said)}</p>"
        self.source_code.value = self.code()
        self._show_controls()
        self.renders += 1

    def _show_controls(self) -> None:
        before, self._quiet = self._quiet, True  # our own changes are no events
        try:
            self._controls.show(self.state)
        finally:
            self._quiet = before

    def _arrange(self) -> list[widgets.Widget]:
        """Rows that wrap where the page is narrow; pictures shrink before they wrap, and never grow."""
        c, board = self._controls, self._board
        choose = _row(
            _column(c.data, c.image_class, c.image_number),
            _column(widgets.HBox([c.random_image, c.upload]), c.num_masked, c.seed),
            _column(c.model_name, c.step, c.compare_name),
        )
        self.board, self.candidates, self.style_sheet = board.patches, board.candidates, board.style_sheet
        self.attention_box = _row(c.block, c.head)
        self.play_box = _column(self.play_words, self.candidates, widgets.HBox([c.check, c.next_puzzle]))
        pairs = zip(self.pictures, self.words, strict=True)
        self.picture_box = _row(*(_column(*pair, flex="1 1 240px") for pair in pairs), width="100%")
        look_at = _column(c.view, self.attention_box, self.picture_box, self.play_box, flex="1 1 400px")
        main = _row(_column(c.press, self.board, c.location), look_at)
        return [self.style_sheet, choose, self.message, main, c.save_button, self.source_code]


def _row(*children: widgets.Widget, **layout: str) -> widgets.HBox:
    return widgets.HBox(children, layout={"flex_flow": "row wrap"} | layout)


def _column(*children: widgets.Widget, **layout: str) -> widgets.VBox:
    return widgets.VBox(children, layout={"margin": "0 12px 0 0", "align_items": "flex-start"} | layout)


_BY_CELL: dict[str, tuple[str, weakref.WeakSet]] = {}  # a cell: its last execution, and what that made


def _close_those_of_the_last_run_of_this_cell(inspector: PatchInspector) -> None:
    shell = get_ipython()
    parent: dict = getattr(shell, "get_parent", dict)() or {}
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
