"""The patch inspector without a browser: set values, press buttons, look at bytes and text."""

import base64
import html
import io
import shutil
import statistics
import time
from datetime import UTC, datetime

import ipywidgets
import pytest
from PIL import Image
from tiny import config, make_data

from selfie_lite import PatchGrid, Selfie, SelfieLiteError, load_dataset
from selfie_lite.beliefs import look
from selfie_lite.inspector import panel
from selfie_lite.inspector.controls import ANY, NOTHING
from selfie_lite.inspector.panel import PatchInspector
from selfie_lite.inspector.state import ASK, HIDE, VIEWS
from selfie_lite.training.pretrain import pretrain
from selfie_lite.training.weights import load_history, load_pretrained

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture(autouse=True)
def workplace(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def inspector():
    return PatchInspector()


def seen(inspector):
    return (inspector.pictures[0].value, inspector.words[0].value, inspector.style_sheet.value)


def message(inspector):
    return inspector.message.value


def photo(name="cat.jpg", size=(60, 40), kind="JPEG"):
    buffer = io.BytesIO()
    Image.new("RGB", size, (200, 30, 30)).save(buffer, kind)
    return {
        "name": name,
        "type": "image/jpeg",
        "size": 1,
        "content": memoryview(buffer.getvalue()),
        "last_modified": NOW,
    }


def test_opens_on_the_bundled_model_and_images(inspector):
    assert inspector.to_png().startswith(b"\x89PNG") and message(inspector) == ""
    beliefs = look(load_pretrained("additive"), load_dataset("sample", "test").images[0], inspector.masked)
    assert beliefs.describe_guess(inspector.location.value) in html.unescape(inspector.words[0].value)
    assert inspector.renders == 1


@pytest.mark.parametrize(
    ("control", "value"),
    [("image_number", 7), ("image_class", "ship"), ("num_masked", 9), ("seed", 3), ("model_name", "mask_token"),
     ("data", "photos"), ("view", "matrix"), ("view", "attention"), ("view", "puzzle")],
)  # fmt: skip
def test_each_control_changes_picture_and_words_with_one_drawing(inspector, control, value):
    before = seen(inspector)
    getattr(inspector, control).value = value
    after = seen(inspector)
    assert after[0] != before[0] and after[1] != before[1] and message(inspector) == ""
    assert inspector.renders == 2


def test_location_block_head_and_random_image(inspector):
    before = seen(inspector)
    inspector.location.value = inspector.masked[-1]
    assert seen(inspector)[0] != before[0] and f"location {inspector.masked[-1]} " in inspector.words[0].value
    inspector.view.value = "attention"
    words = inspector.words[0].value
    inspector.block.value = 2
    assert inspector.words[0].value != words
    words = inspector.words[0].value
    inspector.head.value = 1
    assert inspector.words[0].value != words
    inspector.image_class.value = "frog"
    inspector.random_image.click()
    assert inspector.dataset.labels[inspector.image_number.value] == inspector.dataset.classes.index("frog")
    inspector.image_number.value += 1  # another class, so the choice of class no longer says what is seen
    assert inspector.image_class.value == ANY


def test_patches_are_pressed_to_ask_and_to_hide(inspector):
    hidden, visible = inspector.masked[2], next(k for k in range(16) if k not in inspector.masked)
    inspector.board.children[hidden].click()
    assert inspector.location.value == hidden and "▸" in inspector.board.children[hidden].description
    inspector.board.children[visible].click()
    assert f"Location {visible} is visible" in message(inspector) and inspector.location.value == hidden
    assert inspector.press.value == ASK
    inspector.press.value = HIDE
    assert message(inspector) == ""
    inspector.board.children[visible].click()
    assert visible in inspector.masked and inspector.num_masked.value == 5 and inspector.location.value == visible
    inspector.board.children[visible].click()
    assert visible not in inspector.masked and inspector.num_masked.value == 4
    for at in list(inspector.masked):
        inspector.board.children[at].click()
    assert len(inspector.masked) == 1 and "Something must be hidden" in message(inspector)
    for at in range(16):
        if at not in inspector.masked:
            inspector.board.children[at].click()
    assert len(inspector.masked) == 15 and "Something must be hidden" in message(inspector)


def test_two_models_side_by_side_on_one_mask(inspector):
    inspector.compare_name.value = "mask_token"
    assert "<b>additive</b>" in inspector.words[0].value and "<b>mask_token</b>" in inspector.words[1].value
    assert inspector.pictures[0].value != inspector.pictures[1].value
    widths = [Image.open(io.BytesIO(p.value)).width for p in inspector.pictures]
    assert Image.open(io.BytesIO(inspector.to_png())).width == sum(widths)
    assert inspector.picture_box.children[1].layout.display == ""
    inspector.view.value = "attention"
    assert "u0 looks most" in inspector.words[0].value and "The mask token of location" in inspector.words[1].value
    inspector.compare_name.value = NOTHING
    assert inspector.picture_box.children[1].layout.display == "none" and len(inspector.models) == 1


def test_a_run_gets_a_slider_through_its_checkpoints(tmp_path, monkeypatch):
    monkeypatch.setenv("SELFIE_LITE_DATA", str(tmp_path / "cache"))
    make_data(tmp_path / "cache")
    pretrain(config(name="mine"))
    assert list(load_history("mine")) == [0, 4, 8, 12]
    inspector = PatchInspector("mine")
    assert list(inspector.step.options) == [0, 4, 8, 12] and inspector.step.value == 12
    newest = inspector.words[0].value
    pictures = {step: None for step in inspector.step.options}
    for step in pictures:
        inspector.step.value = step
        pictures[step] = inspector.pictures[0].value
    assert len(set(pictures.values())) == 4 and inspector.words[0].value == newest
    assert "step=12" in inspector.code() and PatchInspector("mine", step=4).pictures[0].value == pictures[4]
    with pytest.raises(SelfieLiteError, match="no checkpoint of step 5; there are: 0, 4, 8, 12"):
        PatchInspector("mine", step=5)
    later = PatchInspector("mine", compare="mine", step=4)
    assert later.pictures[0].value != later.pictures[1].value, "two checkpoints of one run"
    other = PatchInspector(Selfie(PatchGrid(16, 4), arch="resnet18"), "tiny")
    shutil.rmtree("runs/mine")
    later.step.value = 8
    assert message(later) == "", "what is open stays open"
    other.model_name.value = "mine"
    assert "unknown model &#x27;mine&#x27;" in message(other) and other.model_name.value == "your model"


def test_play_a_round(inspector):
    inspector.view.value = "play"
    assert inspector.picture_box.layout.display == "none" and inspector.play_box.layout.display == ""
    inspector.check.click()
    assert "Place a candidate at" in message(inspector) and inspector.score["rounds"] == 0
    letters = {button.description: button for button in inspector.candidates.children}
    beliefs = inspector.state.look()[0][1]
    for row, at in enumerate(inspector.masked):
        inspector.board.children[at].click()
        letters[beliefs.letter(row)].click()
        assert inspector.board.children[at].description.endswith(f"={beliefs.letter(row)}")
    inspector.check.click()
    assert "You placed 4 of 4 right" in inspector.play_words.value
    assert inspector.score == {"rounds": 1, "patches": 4, "yours": 4, "additive": beliefs.right}
    assert all("✓" in inspector.board.children[at].description for at in inspector.masked)
    inspector.check.click()
    assert inspector.score["rounds"] == 1 and "checked already" in message(inspector)
    inspector.next_puzzle.click()
    assert inspector.placed == {} and "So far, 4 patches in 1 round: you 4" in inspector.play_words.value
    first = inspector.masked[0]
    for button in inspector.candidates.children:  # in order of the letters: mostly wrong
        button.click()
    inspector.board.children[first].click()
    moved = inspector.placed[inspector.masked[1]]
    inspector.candidates.children[inspector.state.order.index(moved)].click()
    assert inspector.placed[first] == moved and len(inspector.placed) == 3, "a candidate lies at one place only"
    moved = inspector.to_png()
    inspector.candidates.children[0].click()
    assert inspector.to_png() != moved, "the picture shows what has been placed"


def test_upload_and_its_errors(inspector):
    good = seen(inspector)
    inspector.upload.value = (photo() | {"content": memoryview(b"no image")},)
    assert "cat.jpg: cannot be read" in message(inspector) and seen(inspector) == good
    inspector.upload.value = (photo(size=(20, 31)),)
    assert "20×31 pixels, but the model takes 32×32" in message(inspector) and seen(inspector) == good
    inspector.upload.value = (photo("<b>.jpg") | {"content": memoryview(b"")},)
    assert "&lt;b&gt;.jpg" in message(inspector)
    inspector.upload.value = (photo(),)
    assert message(inspector) == "" and inspector.data_name == "cat.jpg" and seen(inspector) != good
    assert inspector.upload.value == () and inspector.image_number.max == 0
    inspector.data.value = "sample"
    assert inspector.image_number.max == 999
    inspector.data.value = "cat.jpg"
    assert message(inspector) == "" and inspector.data_name == "cat.jpg"


def test_a_file_of_ones_own_by_path(tmp_path):
    (tmp_path / "dog.png").write_bytes(bytes(photo(size=(300, 200), kind="PNG")["content"]))
    inspector = PatchInspector(dataset="dog.png")
    assert "'dog.png'" in inspector.code() and message(inspector) == ""


def test_errors_leave_everything_as_it_was_and_the_widget_usable(inspector):
    large = Selfie(PatchGrid(224, 32), arch="resnet18").eval()
    inspector.sources.model(large, "large")
    inspector.seed.value = 1  # the lists are filled again
    good = seen(inspector)
    inspector.compare_name.value = "large"
    assert "cannot share one mask" in message(inspector) and inspector.compare_name.value == NOTHING
    inspector.model_name.value = "large"
    assert "32×32 pixels, but the model takes 224×224" in message(inspector)
    assert inspector.model_name.value == "additive" and seen(inspector) == good
    inspector.data.value = "photos"
    inspector.model_name.value = "large"
    assert message(inspector) == "" and len(inspector.board.children) == 49 and len(inspector.masked) == 12
    inspector.data.value = "sample"
    assert "32×32 pixels" in message(inspector) and inspector.data.value == "photos"
    inspector.image_number.value = 3
    assert message(inspector) == ""
    for view in VIEWS:
        inspector.view.value = view
        assert message(inspector) == ""


def test_a_model_without_attention():
    pooling = Selfie(PatchGrid(32, 8), arch="resnet18", pooling="mean").eval()
    with pytest.raises(SelfieLiteError, match="your other model has no attention to show"):
        PatchInspector(compare=pooling, view="attention")
    inspector = PatchInspector(pooling)
    before = seen(inspector)
    inspector.view.value = "attention"
    assert (
        "it pools by mean or max" in message(inspector)
        and inspector.view.value == "guess"
        and seen(inspector) == before
    )


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"model": "aditive"}, "Did you mean 'additive'"),
        ({"dataset": "smple"}, "Did you mean 'sample'"),
        ({"view": "gess"}, "Did you mean 'guess'"),
        ({"image_number": 1000}, "runs from 0 to 999 here, but is 1000"),
        ({"masked": [1, 1]}, "1 to 15 different locations"),
        ({"masked": [16]}, "from 0 to 15"),
        ({"masked": [3], "location": 4}, "location 4 is not hidden; hidden are 3"),
        ({"head": 8}, "head 8 is not there: there are 0 to 7"),
        ({"dataset": "photos", "model": Selfie(PatchGrid(448, 64), arch="resnet18")}, "the model takes 448×448"),
    ],
)
def test_bad_arguments_are_refused(arguments, error):
    with pytest.raises(SelfieLiteError, match=error):
        PatchInspector(**arguments)


@pytest.mark.parametrize("view", VIEWS)
def test_two_lines_rebuild_the_view(view):
    inspector = PatchInspector(
        "mask_token", compare="additive", image_number=5, masked=[0, 5, 7], location=5, view=view
    )
    inspector.block.value, inspector.head.value, inspector.seed.value = 1, 3, 4
    inspector.location.value = inspector.masked[1]
    lines = inspector.code().splitlines()
    assert len(lines) == 2 and inspector.source_code.value == inspector.code()
    space = {}
    exec(lines[0], space)
    again = eval(lines[1], space)
    assert again.to_png() == inspector.to_png() and again.masked == inspector.masked
    assert again.code() == inspector.code()


def test_what_has_no_name_stands_in_the_lines_as_a_variable(inspector):
    model, other = (Selfie(PatchGrid(32, 8), arch="resnet18").eval() for _ in range(2))
    data = load_dataset("sample", "train")  # by its name one would get the test part
    unnamed = PatchInspector(model, data, compare=other)
    assert "PatchInspector(your_model, your_data, compare=your_other_model, image" in unnamed.code()
    again = eval(repr(unnamed), globals() | {"your_model": model, "your_other_model": other, "your_data": data})
    assert again.to_png() == unnamed.to_png()
    unnamed.compare_name.value = NOTHING
    unnamed.compare_name.value = "your other model"
    assert again.to_png() == unnamed.to_png(), "the second is not the first"
    unnamed.data.value = "sample"
    assert message(unnamed) == "" and len(unnamed.dataset) == 1000
    inspector.upload.value = (photo("sample"),)
    inspector.data.value = "sample"
    assert message(inspector) == "" and len(inspector.dataset) == 1000, "a file of that name is not the data set"


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("count", [1, 15])
def test_all_but_one_hidden_and_all_but_one_shown(inspector, view, count):
    inspector.view.value, inspector.num_masked.value = view, count
    assert message(inspector) == "" and len(inspector.masked) == count


def test_saved_picture_and_static_fallback(inspector):
    inspector.save_button.click()
    path = message(inspector).split("Saved: ")[1].split("<")[0]
    with open(path, "rb") as file:
        assert file.read() == inspector.to_png()
    bundle = inspector._repr_mimebundle_()
    assert base64.b64decode(bundle["image/png"]) == inspector.to_png()
    assert bundle["text/plain"] == repr(inspector) and "application/vnd.jupyter.widget-view+json" in bundle


def test_two_widgets_share_no_state():
    one, two = PatchInspector(), PatchInspector()
    before = seen(two)
    one.image_number.value, one.view.value, one.num_masked.value = 9, "puzzle", 8
    one.upload.value = (photo(),)
    one.data.value = "photos"
    assert seen(two) == before and two.view.value == "guess" and len(two.masked) == 4
    assert "cat.jpg" not in two.data.options
    assert one._id != two._id and one._id not in two.style_sheet.value


def test_dragging_draws_once_for_each_value_and_leaves_nothing_to_do(inspector):
    for count in range(5, 16):
        inspector.num_masked.value = count
    assert inspector.renders == 1 + 11
    drawn, last = inspector.renders, seen(inspector)
    time.sleep(0.3)
    assert inspector.renders == drawn and seen(inspector) == last, "work that was queued"
    assert len(inspector.masked) == 15


def test_a_change_shows_soon(inspector):
    seconds = []
    for number in range(1, 8):
        start = time.perf_counter()
        inspector.image_number.value = number
        seconds.append(time.perf_counter() - start)
    assert statistics.median(seconds) < 0.6, "far beyond the 0.15 s that nbs/results/inspector.json records"


def open_widgets():
    return len(ipywidgets.widgets.widget._instances)


def test_closing_leaves_no_widget_behind():
    before = open_widgets()
    inspector = PatchInspector(compare="mask_token")
    opened = open_widgets()
    assert opened > before + 100
    inspector.data.value = "photos"  # a change of the board is one of widgets too
    inspector.compare_name.value = NOTHING
    inspector.sources.model(Selfie(PatchGrid(224, 32), arch="resnet18").eval(), "large")
    inspector.seed.value = 1
    inspector.model_name.value = "large"
    assert message(inspector) == "" and len(inspector.board.children) == 49
    inspector.model_name.value = "additive"
    assert len(inspector.board.children) == 16 and open_widgets() <= opened
    inspector.close()
    inspector.close()
    assert open_widgets() == before


def test_a_cell_that_is_run_again_closes_what_it_made_before(monkeypatch):
    shell = type("Shell", (), {"get_parent": lambda self: self.parent})()
    monkeypatch.setattr(panel, "get_ipython", lambda: shell)

    def run(cell, execution, count=1):
        shell.parent = {"metadata": {"cellId": cell} if cell else {}, "header": {"msg_id": execution}}
        return [PatchInspector() for _ in range(count)]

    before = open_widgets()
    (one,) = run("a", "1")
    each = open_widgets() - before
    run("a", "2")
    assert open_widgets() == before + each and one.comm is None
    two = run("b", "3", count=2)
    assert open_widgets() == before + 3 * each and all(inspector.comm for inspector in two), "one cell may make two"
    for execution in range(4, 8):
        run("b", str(execution))
        assert open_widgets() == before + 2 * each
    run("", "8")
    assert open_widgets() == before + 3 * each, "who does not say which cell it is keeps all"


def test_every_list_says_what_is_chosen_also_where_it_is_nothing(inspector):
    lists = {"image_class": "any class", "compare_name": "nothing", "block": "mean", "head": "mean"}
    for name, label in lists.items():
        control = getattr(inspector, name)
        assert control.index == 0 and control.label == label
        control.index = 1  # as a browser does it
        assert control.index == 1 and message(inspector) == ""
        control.index = 0
        assert control.index == 0 and control.label == label and message(inspector) == ""
    assert (inspector.state.image.of_class, len(inspector.models), inspector.state.block) == (None, 1, None)
