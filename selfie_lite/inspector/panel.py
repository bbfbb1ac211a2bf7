"""The patch inspector: one widget to look inside one image. It holds state and events; `beliefs` has the numbers and
the words, `figures` the pictures."""

import base64
import gc
import html
import io
import random
from collections.abc import Callable
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from uuid import uuid4

import ipywidgets as widgets
import torch
from PIL import Image
from torch import Tensor

from selfie_lite.beliefs import Beliefs, fit_image, look
from selfie_lite.data.catalog import KNOWN, data_cache
from selfie_lite.data.datasets import ImageDataset, ImageFiles, load_dataset
from selfie_lite.data.images import read_image
from selfie_lite.errors import DatasetNotFoundError, SelfieLiteError, require_choice
from selfie_lite.patches import patchify, sample_masks, unpatchify
from selfie_lite.selfie import Selfie
from selfie_lite.training.weights import known_models, load_history
from selfie_lite.workbook import figures

VIEWS = ["guess", "matrix", "attention", "puzzle", "play"]
ANY, NOTHING = "any class", "nothing"
ASK, HIDE = "ask about it", "hide or show it"


class PatchInspector(widgets.VBox):
    """Choose an image, hide patches, and see what a model believes belongs there, and why.

    Every control is a core widget and reachable by keyboard; under every picture stands in words what it shows; a
    mistake is told in one sentence in the widget. `code()` gives the two lines that rebuild what is seen.

    Args:
        model: "additive" or "mask_token" (bundled), a run (its checkpoints get a slider), a checkpoint's folder, or a
            `Selfie` in evaluation mode.
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
        require_choice("view", view, VIEWS)
        self._opened: dict[tuple, object] = {}
        self.models: list[tuple[str, dict[int, Selfie]]] = [self._open(_open_model, model, "your model")]  # or two
        self.data_name, self.dataset = self._open(_open_dataset, dataset, "your data")
        self.renders = 0
        self.score = {"rounds": 0, "patches": 0, "yours": 0}  # and each model's, by name
        self.placed: dict[int, int] = {}  # location → candidate, in play
        self._puzzle: tuple = ()
        self._checked = self._quiet = False
        self._random = random.Random(seed)
        self._make_controls()
        super().__init__(self._arrange())
        self.add_class(self._id)
        with self._quietly():
            if step is not None:
                if step not in self.models[0][1]:
                    raise SelfieLiteError(f"no checkpoint of step {step}; there are: {_list(self.models[0][1])}.")
                self._fill_steps(step)
            else:
                self._fill_steps()
            self._fill_dataset()
            if not 0 <= image_number < len(self.dataset):
                raise SelfieLiteError(
                    f"image_number runs from 0 to {len(self.dataset) - 1} here, but is {image_number}."
                )
            self.image_number.value, self.seed.value, self.view.value = image_number, seed, view
            self.raw = self.dataset[image_number][0]
            fit_image(self.raw, self.grid)
            self._fill_grid()
            self.masked = self._draw_masks(self.model.num_masked)
            if masked is not None:
                self.masked = look(self.model, self.raw, masked).masked.tolist()
            self._fill_locations(location)
            for control, value in ((self.block, block), (self.head, head)):
                if value not in [option[1] for option in control.options]:
                    last = len(control.options) - 2
                    raise SelfieLiteError(f"{control.description} {value} is not there: there are 0 to {last}.")
                control.value = value
            if compare is not None:
                self._compare(*self._open(_open_model, compare, "your other model"))
        self._refresh()
        if self.message.value:
            raise SelfieLiteError(html.unescape(self.message.value.split(">", 1)[1].rsplit("<", 1)[0]))

    def _open(self, how: Callable, what, name: str = "") -> tuple:
        """(name, what was opened), kept by name, so that going back is quick. name: of what has none of its own."""
        name = str(what) if isinstance(what, str | Path) else name
        if (how, name) not in self._opened:
            self._opened[how, name] = how(what)
        return name, self._opened[how, name]

    # What is shown now

    @property
    def model(self) -> Selfie:
        return self.models[0][1][self.step.value]

    @property
    def grid(self):
        return next(iter(self.models[0][1].values())).grid

    def code(self) -> str:
        """The two lines of Python that rebuild the present view. A model or data set that was not given by name stands
        in them as the variable your_model, your_other_model or your_data, an uploaded image as the name of its file."""
        return f"from selfie_lite.inspector import PatchInspector\n{self!r}"

    def __repr__(self) -> str:
        settings = {
            "compare": self.models[1][0] if len(self.models) > 1 else None,
            "step": self.step.value if len(self.step.options) > 1 else None,
            "image_number": self.image_number.value,
            "masked": self.masked,
            "location": self.location.value,
            "view": self.view.value,
            "block": self.block.value,
            "head": self.head.value,
            "seed": self.seed.value,
        }
        words = [f"{name}={value!r}" for name, value in settings.items() if value is not None]
        text = f"PatchInspector({', '.join([repr(self.models[0][0]), repr(self.data_name), *words])})"
        for name in ("your model", "your other model", "your data"):
            text = text.replace(repr(name), name.replace(" ", "_"))
        return text

    def _repr_mimebundle_(self, **kwargs):
        bundle = super()._repr_mimebundle_(**kwargs)
        bundle["text/plain"] = repr(self)
        bundle["image/png"] = base64.b64encode(self.to_png()).decode()  # for places where no widget runs
        return bundle

    def to_png(self) -> bytes:
        """The pictures of the present view, side by side; in play, the image with the patches placed so far."""
        if self.view.value == "play":
            patches = patchify(fit_image(self.raw, self.grid)[None], self.grid)
            filled, at = patches.clone(), list(self.placed)
            filled[0, at] = patches[0, [self.masked[candidate] for candidate in self.placed.values()]]
            empty = {*self.masked} - {*at}
            return figures.to_png(figures.draw_grid(unpatchify(filled, self.grid)[0], self.grid, empty))
        pictures = [Image.open(io.BytesIO(picture.value)) for picture in self.pictures[: len(self.models)]]
        whole = Image.new("RGB", (sum(p.width for p in pictures), max(p.height for p in pictures)), "white")
        for i, picture in enumerate(pictures):
            whole.paste(picture, (sum(p.width for p in pictures[:i]), 0))
        buffer = io.BytesIO()
        whole.save(buffer, "PNG")
        return buffer.getvalue()

    def save(self, path: str | Path | None = None) -> Path:
        """Write the present view as PNG; default: a file in runs/inspector/ named after what it shows."""
        name = f"{Path(self.data_name).stem}-{self.image_number.value}-{self.view.value}.png"
        path = Path("runs/inspector") / name if path is None else Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(self.to_png())
        return path

    # Controls

    def _make_controls(self) -> None:
        self._id = f"inspector-{uuid4().hex[:8]}"
        wide = {"style": {"description_width": "94px"}, "layout": {"width": "260px"}}
        half = {"layout": {"width": "126px"}}
        names = [name for name, _ in self.models]
        known = known_models()
        self.model_name = widgets.Dropdown(options=_with(known, names), value=names[0], description="model", **wide)
        self.step = widgets.SelectionSlider(options=list(self.models[0][1]), description="after step", **wide)
        self.compare_name = widgets.Dropdown(options=[NOTHING, *known], description="compare with", **wide)
        known = _with(_known_data(), [self.data_name])
        self.data = widgets.Dropdown(options=known, value=self.data_name, description="images", **wide)
        self.image_number = widgets.BoundedIntText(description="number", max=10**9, **wide)
        self.image_class = widgets.Dropdown(options=[ANY], description="class", **wide)
        self.random_image = widgets.Button(description="random image", **half)
        self.upload = widgets.FileUpload(
            accept="image/*", description="your own", **half,
            tooltip="an image file; Jupyter by itself takes 10 MB at most, a larger one is opened by its path",
        )  # fmt: skip
        self.num_masked = widgets.IntSlider(min=1, max=10**6, description="hidden", **wide)
        self.seed = widgets.BoundedIntText(max=10**9, description="seed", **wide)
        self.press = widgets.ToggleButtons(options=[ASK, HIDE], description="press a patch to", style=_buttons(120))
        self.view = widgets.ToggleButtons(options=VIEWS, description="view", style=_buttons(80))
        self.location = widgets.Dropdown(options=[0], description="location", **wide)
        self.block = widgets.Dropdown(options=[("mean", None)], description="block", **wide)
        self.head = widgets.Dropdown(options=[("mean", None)], description="head", **wide)
        self.save_button = widgets.Button(description="save as PNG", **half)
        self.source_code = widgets.Textarea(description="rebuild", rows=3, layout={"width": "97%"})
        self.message, self.style_sheet = widgets.HTML(), widgets.HTML()
        self.pictures = [widgets.Image(format="png", layout={"max_width": "100%", "margin": "0"}) for _ in range(2)]
        self.words = [widgets.HTML() for _ in range(2)]
        self.board = widgets.GridBox()
        self.candidates = widgets.HBox(layout={"flex_flow": "row wrap"})
        self.check = widgets.Button(description="check", button_style="success", **half)
        self.next_puzzle = widgets.Button(description="next puzzle", **half)
        self.play_words = widgets.HTML()
        for control, apply in {
            self.model_name: self._set_model, self.step: self._nothing, self.compare_name: self._set_compare,
            self.data: self._set_data, self.image_number: self._set_image, self.image_class: self._set_class,
            self.upload: self._set_upload, self.num_masked: self._set_num_masked, self.seed: self._set_seed,
            self.press: self._nothing, self.view: self._set_view, self.location: self._nothing,
            self.block: self._nothing, self.head: self._nothing,
        }.items():  # fmt: skip
            control.observe(partial(self._on_change, apply), names="value")
        for button, act in {
            self.random_image: self._random_image, self.save_button: self._save, self.check: self._check,
            self.next_puzzle: self._next_puzzle,
        }.items():  # fmt: skip
            button.on_click(partial(self._on_press, act))

    def _arrange(self) -> list[widgets.Widget]:
        """Rows that wrap where the page is narrow; pictures shrink before they wrap, and never grow."""

        def row(*children, **layout):
            return widgets.HBox(children, layout={"flex_flow": "row wrap"} | layout)

        def column(*children, **layout):
            return widgets.VBox(children, layout={"margin": "0 12px 0 0", "align_items": "flex-start"} | layout)

        choose = row(
            column(self.data, self.image_class, self.image_number),
            column(widgets.HBox([self.random_image, self.upload]), self.num_masked, self.seed),
            column(self.model_name, self.step, self.compare_name),
        )
        self.attention_box = row(self.block, self.head)
        self.play_box = column(self.play_words, self.candidates, widgets.HBox([self.check, self.next_puzzle]))
        pairs = zip(self.pictures, self.words, strict=True)
        self.picture_box = row(*(column(*pair, flex="1 1 240px") for pair in pairs), width="100%")
        look_at = column(self.view, self.attention_box, self.picture_box, self.play_box, flex="1 1 400px")
        main = row(column(self.press, self.board, self.location), look_at)
        return [self.style_sheet, choose, self.message, main, self.save_button, self.source_code]

    @contextmanager
    def _quietly(self):
        """Our own changes of controls: no events."""
        before, self._quiet = self._quiet, True
        try:
            yield
        finally:
            self._quiet = before

    def _on_change(self, apply: Callable, change) -> None:
        if self._quiet:
            return
        try:
            with self._quietly():
                apply(change["new"])
        except (SelfieLiteError, OSError) as error:
            with self._quietly():
                change["owner"].value = change["old"]
            self._say(error)
            return
        self._refresh()

    def _on_press(self, act: Callable, _button=None) -> None:
        try:
            with self._quietly():
                said = act()
        except (SelfieLiteError, OSError) as error:
            self._say(error)
            return
        self._refresh()
        if said:
            self._say(said)

    def _say(self, text: object) -> None:
        self.message.value = f'<div role="alert">{html.escape(str(text))}</div>' if text else ""

    # What controls do. Each looks before it changes anything, so that an error leaves all as it was.

    def _nothing(self, value) -> None:
        pass

    def _set_model(self, name: str) -> None:
        name, history = self._open(_open_model, name)
        grid = next(iter(history.values())).grid
        if len(self.models) > 1:
            _require_same_grid(self.models[1], (name, history))
        fit_image(self.raw, grid)
        changed = grid != self.grid
        self.models[0] = (name, history)
        self._fill_steps()
        self._fill_attention()
        if changed:
            self._fill_grid()
            self.masked = self._draw_masks(self.model.num_masked)
            self._fill_locations()

    def _set_compare(self, name: str) -> None:
        if name == NOTHING:
            del self.models[1:]
        else:
            self._compare(*self._open(_open_model, name))

    def _compare(self, name: str, history: dict[int, Selfie]) -> None:
        _require_same_grid(self.models[0], (name, history))
        if self.view.value == "attention":
            _require_attention(name, history)
        self.models[1:] = [(name, history)]
        self.compare_name.options = _with(self.compare_name.options, [name])
        self.compare_name.value = name

    def _set_data(self, name: str) -> None:
        name, dataset = self._open(_open_dataset, name)
        raw = dataset[0][0]
        fit_image(raw, self.grid)
        self.data_name, self.dataset, self.raw = name, dataset, raw
        self._fill_dataset()

    def _set_upload(self, files: tuple) -> None:
        if not files:
            return
        name = files[0]["name"]
        if name in _known_data():
            name = f"./{name}"  # not the data set of that name
        pixels = read_image(io.BytesIO(bytes(files[0]["content"])), name=name)
        dataset = _one_image(name, pixels)
        fit_image(dataset.images[0], self.grid)
        self.upload.value = ()
        self._opened[_open_dataset, name] = dataset
        self.data.options = _with(self.data.options, [name])
        self.data.value = name
        self._set_data(name)

    def _set_image(self, number: int) -> None:
        raw, label = self.dataset[number]
        fit_image(raw, self.grid)
        self.raw = raw
        if self.image_class.value not in (ANY, self.dataset.classes[label]):
            self.image_class.value = ANY

    def _set_class(self, name: str) -> None:
        if name != ANY:
            self.image_number.value = int(self._numbers_of(name)[0])
            self.raw = self.dataset[self.image_number.value][0]

    def _random_image(self) -> None:
        number = self._random.choice(self._numbers_of(self.image_class.value).tolist())
        self._set_image(number)
        self.image_number.value = number

    def _numbers_of(self, name: str) -> Tensor:
        if name == ANY:
            return torch.arange(len(self.dataset))
        found = (self.dataset.labels == self.dataset.classes.index(name)).nonzero()[:, 0]
        if not len(found):
            raise SelfieLiteError(f"{self.data_name} has no image of the class {name} here.")
        return found

    def _set_num_masked(self, count: int) -> None:
        self.masked = self._draw_masks(count)
        self._fill_locations()

    def _set_seed(self, seed: int) -> None:
        self._set_num_masked(len(self.masked))

    def _draw_masks(self, count: int) -> list[int]:
        return sample_masks(1, self.grid, count, torch.Generator().manual_seed(self.seed.value))[1][0].tolist()

    def _set_view(self, view: str) -> None:
        if view == "attention":
            for name, history in self.models:
                _require_attention(name, history)

    def _press_location(self, location: int) -> str | None:
        hidden = location in self.masked
        if self.view.value != "play" and self.press.value == HIDE:
            masked = sorted({*self.masked} ^ {location})
            if not 1 <= len(masked) < self.grid.count:
                return "Something must be hidden, and something must stay visible."
            self.masked = masked
            self._fill_locations(location if not hidden else None)
        elif hidden:
            self.location.value = location
        else:
            return f"Location {location} is visible: press a hidden one (hatched), or choose “{HIDE}” first."
        return None

    def _save(self) -> str:
        return f"Saved: {self.save()}"

    # Play

    def _place(self, place: int) -> None:
        if self._checked:
            return
        candidate = self._order[place]
        self.placed = {at: k for at, k in self.placed.items() if k != candidate} | {self.location.value: candidate}
        left = [at for at in self.masked if at not in self.placed]
        if left:
            self.location.value = left[0]

    def _check(self) -> str | None:
        left = [at for at in self.masked if at not in self.placed]
        if self._checked:
            return "This puzzle is checked already: take the next one."
        if left:
            return f"Place a candidate at {_list(left)} first."
        self._checked = True
        self.score["rounds"] += 1
        self.score["patches"] += len(self.masked)
        self.score["yours"] += self._yours()
        for name, beliefs in self._look():
            self.score[name] = self.score.get(name, 0) + beliefs.right
        return None

    def _yours(self) -> int:
        return sum(self.masked[candidate] == at for at, candidate in self.placed.items())

    def _next_puzzle(self) -> None:
        self._random_image()
        self.seed.value += 1
        self._set_seed(self.seed.value)

    # Filling controls with what there is to choose

    def _fill_steps(self, step: int | None = None) -> None:
        steps = list(self.models[0][1])
        self.step.options, self.step.value = steps, steps[-1] if step is None else step
        self.step.layout.display = "" if len(steps) > 1 else "none"

    def _fill_attention(self) -> None:
        pool = self.model.pool
        blocks = list(pool.blocks) if pool.pooling == "attention" else []
        for control, count in ((self.block, len(blocks)), (self.head, blocks[0].num_heads if blocks else 0)):
            control.options = [("mean", None), *((str(i), i) for i in range(count))]
        if not blocks and self.view.value == "attention":
            self.view.value = "guess"

    def _fill_dataset(self) -> None:
        self.image_number.value, self.image_number.max = 0, len(self.dataset) - 1
        self.image_class.options = [ANY, *dict.fromkeys(self.dataset.classes)]
        self.image_class.value = ANY

    def _fill_grid(self) -> None:
        side, size = self.grid.side, "52px" if self.grid.side < 6 else "40px"
        buttons = []
        for at in range(self.grid.count):
            button = widgets.Button(layout={"width": size, "height": size, "margin": "0", "padding": "0"})
            button.add_class("patch").add_class(f"at-{at}")
            button.on_click(partial(self._on_press, partial(self._press_location, at)))
            buttons.append(button)
        self.board.children = buttons
        self.board.layout.grid_template_columns = f"repeat({side}, {size})"
        self.num_masked.max = self.grid.count - 1
        self._fill_attention()

    def _fill_locations(self, wanted: int | None = None) -> None:
        if wanted is not None and wanted not in self.masked:
            raise SelfieLiteError(f"location {wanted} is not hidden; hidden are {_list(self.masked)}.")
        kept = self.location.value if self.location.value in self.masked else self.masked[0]
        self.location.options = self.masked
        self.location.value = kept if wanted is None else wanted
        self.num_masked.value = len(self.masked)

    # Drawing

    def _look(self) -> list[tuple[str, Beliefs]]:
        looked, threads = [], torch.get_num_threads()
        torch.set_num_threads(1)  # enough for one image, and quick beside a training run, where several would wait
        try:
            for i, (name, history) in enumerate(self.models):
                step = self.step.value if i == 0 else max(history)
                looked.append((name, look(history[step], self.raw, self.masked, self.seed.value)))
        finally:
            torch.set_num_threads(threads)
        return looked

    def _refresh(self) -> None:
        """Draw, and free what was drawn at once: figures are full of cycles, and ten of them left to Python's collector
        make it look through everything that is loaded, a third of a second long."""
        collecting = gc.isenabled()
        gc.disable()
        try:
            self._draw_all()
        finally:
            if collecting:
                gc.enable()
            gc.collect(0)

    def _draw_all(self) -> None:
        self._say("")
        try:
            looked = self._look()
            puzzle = (self.data_name, self.image_number.value, tuple(self.masked), self.seed.value)
            if puzzle != self._puzzle:
                self._puzzle, self.placed, self._checked = puzzle, {}, False
                with self._quietly():
                    self._fill_candidates(looked[0][1])
            play, view = self.view.value == "play", self.view.value
            for (name, beliefs), picture, words in zip(() if play else looked, self.pictures, self.words, strict=False):
                figure, text = self._draw(beliefs)
                if len(looked) > 1:  # which of the two
                    figure.suptitle(name, fontsize=10, weight="bold")
                same = (view, len(looked), len(self.masked), self.grid)
                picture.value = figures.to_png(figure, same, dpi=110 if view == "attention" else 80)
                words.value = f"<p><b>{html.escape(name)}</b>: {html.escape(text)}</p>"
        except (SelfieLiteError, OSError) as error:
            self._say(error)
            return
        with self._quietly():
            for i, box in enumerate(self.picture_box.children):
                box.layout.display = "" if i < len(looked) else "none"
            self.picture_box.layout.display = "none" if play else ""
            self.play_box.layout.display = "" if play else "none"
            self.press.layout.visibility = "hidden" if play else "visible"  # pressing means placing
            self.attention_box.layout.display = "" if view == "attention" else "none"
            self._paint_board(looked[0][1])
            self.play_words.value = self._play_in_words(looked)
            self.source_code.value = self.code()
        self.renders += 1

    def _draw(self, beliefs: Beliefs):
        """The present view as a figure, and in words."""
        at, view = self.location.value, self.view.value
        seen, whole = (beliefs.image, beliefs.grid), len(self.models) == 1
        if view == "matrix":
            return figures.draw_logits(beliefs.logits, *seen, beliefs.masked, whole=False), beliefs.describe_logits()
        if view == "puzzle":
            return figures.draw_puzzle(*seen, beliefs.masked, beliefs.logits, whole), beliefs.describe_puzzle()
        if view == "attention":
            has_mask_tokens = beliefs.attention.shape[2] > 1
            who = f"mask token of location {at}" if has_mask_tokens else "u0"
            weights = beliefs.attention_from(at if has_mask_tokens else None, self.block.value, self.head.value)
            figure = figures.draw_attention(
                beliefs.image, beliefs.grid, beliefs.visible, beliefs.masked, weights[None], [who], 1
            )
            return figure, beliefs.describe_attention(weights, f"The {who}" if has_mask_tokens else who)
        return figures.draw_guess(beliefs, at, whole), beliefs.describe_guess(at)

    def _fill_candidates(self, beliefs: Beliefs) -> None:
        """One button a place in the shuffled row. Kept from puzzle to puzzle, and so is the keyboard's focus."""
        buttons = list(self.candidates.children[: len(self.masked)])
        for place in range(len(buttons), len(self.masked)):
            letter = beliefs.letter(int(beliefs.order[place]))
            button = widgets.Button(
                description=letter, tooltip=f"candidate {letter}: press to place it at the chosen location",
                layout={"width": "52px", "height": "52px", "padding": "0"},
            )  # fmt: skip
            button.add_class("patch").add_class(f"candidate-{place}")
            button.on_click(partial(self._on_press, partial(self._place, place)))
            buttons.append(button)
        if len(buttons) != len(self.candidates.children):
            self.candidates.children = buttons
        self._order = beliefs.order.tolist()

    def _paint_board(self, beliefs: Beliefs) -> None:
        """Patches are the buttons' backgrounds: one picture, moved to the place of each."""
        play, side = self.view.value == "play", self.grid.side
        buffer = io.BytesIO()
        Image.fromarray(beliefs.image.permute(1, 2, 0).numpy()).save(buffer, "PNG")
        url = f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"

        def patch(of: int) -> str:
            row, column = divmod(of, side)
            return (
                f"background: var(--image) {100 * column / (side - 1):.2f}% {100 * row / (side - 1):.2f}% / {side}00% "
                "!important; color: white !important; text-shadow: 0 0 3px black, 0 0 3px black;"
            )

        hatched = (
            "background: repeating-linear-gradient(135deg, #ddd 0 5px, #888 5px 6px) !important; "
            "color: black !important; text-shadow: 0 0 3px white, 0 0 3px white;"
        )
        rules = [f".{self._id} {{ --image: url({url}); }}"]
        rules += [f".{self._id} .patch {{ image-rendering: pixelated; font-weight: bold; }}"]
        rules += [f".{self._id} button:focus-visible {{ outline: 3px solid #0072B2 !important; z-index: 1; }}"]
        rules += [f".{self._id} [role=alert] {{ border-left: 4px solid #D55E00; padding-left: 8px; }}"]
        rules += [f".{self._id} p {{ line-height: 1.4; }}"]
        for at, button in enumerate(self.board.children):
            hidden, placed = at in self.masked, self.placed.get(at) if play else None
            asked = hidden and at == self.location.value
            text, state = f"{at}", "visible"
            if hidden:
                text, state = (f"{at} ?", "hidden") if placed is None else (f"{at}={beliefs.letter(placed)}", "placed")
            if play and self._checked and hidden:
                text += " ✓" if self.masked[placed] == at else " ✗"
            button.description, button.tooltip = ("▸" if asked else "") + text, f"location {at}: {state}"
            look_of = patch(self.masked[placed]) if placed is not None else hatched if hidden else patch(at)
            frame = f"box-shadow: inset 0 0 0 {'4px #E69F00' if asked else '0.5px white'} !important;"
            rules.append(f".{self._id} .at-{at} {{ {look_of} {frame} }}")
        for place, candidate in enumerate(self._order):
            rules.append(f".{self._id} .candidate-{place} {{ {patch(self.masked[candidate])} }}")
        self.style_sheet.value = f"<style>{' '.join(rules)}</style>"

    def _play_in_words(self, looked: list[tuple[str, Beliefs]]) -> str:
        count, left = len(self.masked), [at for at in self.masked if at not in self.placed]
        if self._checked:
            said = [f"You placed {self._yours()} of {count} right"]
            said += [f"{name} {beliefs.right} of {count}" for name, beliefs in looked]
            text = f"{'; '.join(said)}; guessing gives 1 on average. (A model may use a patch twice.)"
        elif left:
            text = f"What belongs at location {self.location.value}? Press a candidate. To fill: {_list(left)}."
        else:
            text = "All are placed: check, or press a location and another candidate to change your mind."
        if rounds := self.score["rounds"]:
            total = [f"you {self.score['yours']}"]
            total += [f"{name} {self.score[name]}" for name, _ in self.models if name in self.score]
            patches = self.score["patches"]
            text += f" So far, {patches} patches in {rounds} round{'s' * (rounds > 1)}: {', '.join(total)}."
        return f"<p>{html.escape(text)}</p>"


def _open_model(model: str | Path | Selfie) -> dict[int, Selfie]:
    """The model at every step that there is."""
    return {0: model.eval()} if isinstance(model, Selfie) else load_history(model)


def _require_attention(name: str, history: dict[int, Selfie]) -> None:
    if next(iter(history.values())).pool.pooling != "attention":
        raise SelfieLiteError(f"{name} pools by mean or max: it has no attention to show.")


def _require_same_grid(*named: tuple[str, dict[int, Selfie]]) -> None:
    (one, first), (other, second) = ((name, next(iter(history.values())).grid) for name, history in named)
    if first != second:
        raise SelfieLiteError(
            f"{one} cuts {first.image_size}×{first.image_size} pixels into {first.side}×{first.side} patches, {other} "
            f"{second.image_size}×{second.image_size} into {second.side}×{second.side}: they cannot share one mask."
        )


def _open_dataset(dataset: str | Path | ImageDataset | ImageFiles) -> ImageDataset | ImageFiles:
    if isinstance(dataset, ImageDataset | ImageFiles):
        return dataset
    if Path(dataset).expanduser().is_file():
        return _one_image(str(dataset), read_image(Path(dataset).expanduser()))
    try:
        return load_dataset(dataset, "test", download=False)
    except DatasetNotFoundError:
        raise
    except SelfieLiteError:  # it has no test part
        return load_dataset(dataset, "train", download=False)


def _one_image(name: str, pixels) -> ImageDataset:
    images = torch.from_numpy(pixels).permute(2, 0, 1)[None].contiguous()
    return ImageDataset(name, "test", images, torch.zeros(1, dtype=torch.int64), ["your own"])


def _known_data() -> list[str]:
    here = {path.parent.name for path in data_cache().glob("*/dataset.json")}
    return ["sample", "photos", *sorted(here & {*KNOWN} - {"sample", "photos"}), *sorted(here - {*KNOWN})]


def _with(options, more: list[str]) -> list[str]:
    return list(dict.fromkeys([*options, *more]))


def _buttons(width: int) -> dict[str, str]:
    return {"description_width": "initial", "button_width": f"{width}px"}


def _list(items) -> str:
    """At most eight by name."""
    words = [str(item) for item in items]
    return ", ".join(words if len(words) <= 8 else [*words[:7], f"and {len(words) - 7} more"])
