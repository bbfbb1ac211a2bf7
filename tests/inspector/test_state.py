"""Every rule and every refusal of the inspector, without a widget."""

import io
import subprocess
import sys

import pytest
import torch
from PIL import Image

from selfie_lite import PatchGrid, Selfie, SelfieLiteError, load_dataset
from selfie_lite.inspector import sources
from selfie_lite.inspector.play import Play
from selfie_lite.inspector.shown import board, code, pictures, to_png
from selfie_lite.inspector.state import ASK, HIDE, InspectorState
from selfie_lite.training.weights import load_pretrained


@pytest.fixture(scope="module")
def additive():
    return load_pretrained("additive")


@pytest.fixture
def state(additive):
    return InspectorState(additive)


@pytest.fixture(scope="module")
def pooling():
    return Selfie(PatchGrid(32, 8), arch="resnet18", pooling="mean").eval()


def all_of(state):
    """All that can be seen, but for pictures."""
    return [code(state), board(state), state.press, state.order, state.play.score, state.image.of_class, state.look()]


def image_file(size=(60, 40)):
    buffer = io.BytesIO()
    Image.new("RGB", size, (200, 30, 30)).save(buffer, "PNG")
    return buffer.getvalue()


def test_no_widget_is_loaded_with_it():
    imports = "import sys, selfie_lite.inspector.state, selfie_lite.inspector.shown"
    check = f"{imports}; sys.exit('ipywidgets' in sys.modules or 'IPython' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check]).returncode == 0


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (("set", "model", "aditive"), "Did you mean 'additive'"),
        (("set", "compare", "aditive"), "Did you mean 'additive'"),
        (("set", "data", "smple"), "Did you mean 'sample'"),
        (("set", "step", 5), "no checkpoint of step 5; there are: 0"),
        (("set", "image_number", 1000), "runs from 0 to 999 here, but is 1000"),
        (("set", "image_number", True), "runs from 0 to 999 here, but is True"),
        (("set", "image_number", "1"), "runs from 0 to 999 here, but is '1'"),
        (("set", "image_class", "chip"), "Did you mean 'ship'"),
        (("set", "num_masked", 0), "num_masked runs from 1 to 15 here, but is 0"),
        (("set", "num_masked", 16), "num_masked runs from 1 to 15 here, but is 16"),
        (("set", "masked", [1, 1]), "1 to 15 different locations"),
        (("set", "masked", [16]), "from 0 to 15"),
        (("set", "seed", -1), "seed runs from 0 to"),
        (("set", "view", "gess"), "Did you mean 'guess'"),
        (("set", "location", 99), "location 99 is not hidden; hidden are"),
        (("set", "block", 3), "block 3 is not there: there are 0 to 2"),
        (("set", "head", 8), "head 8 is not there: there are 0 to 7"),
        (("set", "press", "kick"), "unknown way to press 'kick'"),
        (("set", "sed", 1), "Did you mean 'seed'"),
        (("do", "chek"), "Did you mean 'check'"),
        (("do", "press_location", 16), "location runs from 0 to 15"),
        (("do", "place", 4), "candidate runs from 0 to 3"),
        (("do", "check"), "Place a candidate at"),
        (("upload", "a.png", b"no image"), "a.png: cannot be read"),
        (("upload", "a.png", image_file((20, 31))), "20×31 pixels, but the model takes 32×32"),
    ],
)
def test_what_cannot_be_is_refused_and_all_is_as_it_was(state, change, error):
    before = all_of(state)
    with pytest.raises(SelfieLiteError, match=error):
        getattr(state, change[0])(*change[1:])
    assert all_of(state) == before


def test_a_model_that_does_not_fit_is_refused(state, pooling):
    large, before = Selfie(PatchGrid(224, 32), arch="resnet18"), all_of(state)
    for name, error in (("model", "the model takes 224×224"), ("compare", "cannot share one mask")):
        with pytest.raises(SelfieLiteError, match=error):
            state.set(name, large)
        assert all_of(state)[1:] == before[1:]
    state.set("view", "attention")
    with pytest.raises(SelfieLiteError, match="your other model has no attention to show"):
        state.set("compare", pooling)
    state.set("model", pooling)
    assert state.view == "guess" and state.attention_size == (0, 0)
    with pytest.raises(SelfieLiteError, match="has no attention to show"):
        state.set("view", "attention")
    with pytest.raises(SelfieLiteError, match="head 0 is not there: this model has no attention"):
        state.set("head", 0)


def test_what_fails_while_the_model_is_asked_is_taken_back(state, monkeypatch):
    before = all_of(state)

    def broken(*args):
        raise SelfieLiteError("it broke")

    monkeypatch.setattr("selfie_lite.inspector.puzzle.look", broken)
    for change in (("image_number", 3), ("seed", 3), ("num_masked", 9), ("data", "sample"), ("image_class", "ship")):
        with pytest.raises(SelfieLiteError, match="it broke"):
            state.set(*change)
        assert all_of(state) == before


def test_the_location_asked_about_stays_while_it_is_hidden(state):
    state.set("location", state.masked[2])
    kept = state.location
    state.set("image_number", 5)
    assert state.location == kept
    state.set("masked", [0, 1])
    assert state.location == (kept if kept in (0, 1) else 0)
    state.set("press", HIDE)
    state.do("press_location", 9)
    assert (state.masked, state.location) == ([0, 1, 9], 9)
    state.do("press_location", 9)
    assert (state.masked, state.location) == ([0, 1], 0)
    state.do("press_location", 0)
    with pytest.raises(SelfieLiteError, match="Something must be hidden"):
        state.do("press_location", 1)
    state.set("press", ASK)
    with pytest.raises(SelfieLiteError, match="Location 0 is visible"):
        state.do("press_location", 0)


def test_a_class_is_kept_until_another_image_is_chosen(state):
    state.set("image_class", "frog")
    assert state.image.dataset.classes[state.image.dataset[state.image.number][1]] == "frog"
    state.do("random_image")
    assert state.image.of_class == "frog"
    state.set("image_number", state.image.number + 1)
    assert state.image.of_class is None
    state.image.dataset.classes = [*state.image.dataset.classes, "unicorn"]
    with pytest.raises(SelfieLiteError, match="sample has no image of the class unicorn"):
        state.set("image_class", "unicorn")


def test_models_are_asked_only_when_something_of_theirs_has_changed(state, monkeypatch):
    looked = state.look()
    for change in (("view", "matrix"), ("location", state.masked[1]), ("view", "attention"), ("head", 1)):
        state.set(*change)
        assert state.look() is looked
    for change in (("seed", 9), ("image_number", 2), ("num_masked", 5), ("compare", "mask_token")):
        state.set(*change)
        assert state.look() is not looked
        looked = state.look()


def test_play_counts_once_and_a_candidate_lies_at_one_place(additive):
    play, image = Play(), torch.zeros(3, 32, 32)
    play.begin(image, [2, 5, 7], 0)
    play.place(2, 1)
    play.place(5, 1)
    assert play.placed == {5: 1} and play.left == [2, 7] and play.right == 1
    play.begin(image, [2, 5, 7], 0)
    assert play.placed == {5: 1}, "the same puzzle goes on"
    play.place(2, 0)
    play.place(7, 2)
    play.check([])
    play.place(2, 2)
    assert play.placed[2] == 0, "checked: nothing moves"
    with pytest.raises(SelfieLiteError, match="checked already"):
        play.check([])
    assert play.score == {"rounds": 1, "patches": 3, "yours": 3}
    play.begin(image.clone(), [2, 5, 7], 0)
    assert play.placed == {} and not play.checked and play.score["rounds"] == 1


def test_an_upload_never_hides_a_data_set(state):
    state.upload("sample", image_file())
    assert state.image.data_name == "./sample" and len(state.image.dataset) == 1
    state.set("data", "sample")
    assert len(state.image.dataset) == 1000


def test_what_has_no_name_is_a_variable_and_a_folder_of_that_name_is_none(additive, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "your data").mkdir()
    (tmp_path / "your data" / "a.png").write_bytes(image_file())
    named = InspectorState(additive, "your data")
    assert code(named).startswith("PatchInspector(your_model, 'your data', ")
    given = InspectorState(additive, load_dataset("sample", "train"))
    assert code(given).startswith("PatchInspector(your_model, your_data, ")


def test_long_sessions_let_go_of_what_was_opened_long_ago(state, tmp_path):
    for number in range(3 * sources.KEPT):
        state.upload(f"{number}.png", image_file())
        path = tmp_path / f"{number}.png"
        path.write_bytes(image_file())
        state.set("data", str(path))
    opened = state.sources
    assert len(opened.uploads) == len(opened._data) == sources.KEPT
    assert f"{number}.png" in opened.data_names() and "0.png" not in opened.data_names()
    state.set("data", str(tmp_path / "0.png"))  # by its path it is opened again
    for name in [f"{tmp_path}/absent-{n}" for n in range(3)]:
        with pytest.raises(SelfieLiteError):
            state.set("data", name)
        assert name not in opened.data_names()


@pytest.mark.parametrize("view", ["guess", "matrix", "attention", "puzzle", "play"])
def test_pictures_come_from_a_state_alone(state, view):
    state.set("view", view)
    assert [picture.png[:4] for picture in pictures(state)] == [b"\x89PNG"] * (view != "play")
    assert to_png(state).startswith(b"\x89PNG")
