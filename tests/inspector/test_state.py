"""Every rule and every refusal of the inspector, without a widget."""

import base64
import io
import json
import subprocess
import sys
from itertools import permutations

import numpy as np
import pytest
import torch
from PIL import Image

from selfie_lite import PatchGrid, Selfie, SelfieLiteError, load_dataset
from selfie_lite.inspector import messages, sources
from selfie_lite.inspector.messages import code, to_png
from selfie_lite.inspector.state import VIEWS, InspectorState
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
    return [code(state), messages.controls(state), state.image_class, state.look()]


def image_file(size=(60, 40)):
    buffer = io.BytesIO()
    Image.new("RGB", size, (200, 30, 30)).save(buffer, "PNG")
    return buffer.getvalue()


def test_no_widget_is_loaded_with_it():
    imports = "import sys, selfie_lite.inspector.state, selfie_lite.inspector.messages"
    check = f"{imports}; sys.exit('ipywidgets' in sys.modules or 'IPython' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check]).returncode == 0


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (("set", "model", "aditive"), "Did you mean 'additive'"),
        (("set", "compare", "aditive"), "Did you mean 'additive'"),
        (("set", "data", "smple"), "Did you mean 'sample'"),
        (("set", "step", 5), "no checkpoint of step 5; there are: 0"),
        (("set", "image_number", 1000), "image_number must lie between 0 and 999, but is 1000"),
        (("set", "image_number", True), "image_number must be a whole number, but is True"),
        (("set", "image_number", "1"), "image_number must be a whole number, but is '1'"),
        (("set", "image_class", "chip"), "Did you mean 'ship'"),
        (("set", "num_masked", 0), "num_masked must lie between 1 and 15, but is 0"),
        (("set", "num_masked", 16), "num_masked must lie between 1 and 15, but is 16"),
        (("set", "masked", [1, 1]), "1 to 15 different locations"),
        (("set", "masked", [16]), "from 0 to 15"),
        (("set", "seed", -1), "seed must lie between 0 and"),
        (("set", "view", "gess"), "Did you mean 'guess'"),
        (("set", "location", 99), "location 99 is not hidden; hidden are"),
        (("set", "block", 3), "block runs from 0 to 2, but is 3"),
        (("set", "head", 8), "head runs from 0 to 7, but is 8"),
        (("set", "head", -1), "head must be 0 or more"),
        (("set", "block", "one"), "block must be a whole number"),
        (("set", "sed", 1), "Did you mean 'seed'"),
        (("do", "next_puzle"), "Did you mean 'next_puzzle'"),
        (("do", "toggle", 16), "location must lie between 0 and 15"),
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
        assert all_of(state) == before
    state.set("view", "attention")
    with pytest.raises(SelfieLiteError, match="your other model has no attention to show"):
        state.set("compare", pooling)
    state.set("model", pooling)
    assert state.view == "guess"
    with pytest.raises(SelfieLiteError, match="has no attention to show"):
        state.set("view", "attention")
    with pytest.raises(SelfieLiteError, match="no attention to show"):
        state.set("head", 0)


def test_what_fails_while_the_model_is_asked_is_taken_back(state, monkeypatch):
    before = all_of(state)

    def broken(*args):
        raise SelfieLiteError("it broke")

    monkeypatch.setattr("selfie_lite.inspector.state.look", broken)
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
    state.do("toggle", 9)
    assert (state.masked, state.location) == ([0, 1, 9], 9)
    state.do("toggle", 9)
    assert (state.masked, state.location) == ([0, 1], 0)
    state.do("toggle", 0)
    with pytest.raises(SelfieLiteError, match="Something must be hidden"):
        state.do("toggle", 1)


def test_a_class_is_kept_until_another_image_is_chosen(state):
    state.set("image_class", "frog")
    assert state.dataset.classes[state.dataset[state.image_number][1]] == "frog"
    state.do("random_image")
    assert state.image_class == "frog"
    state.set("image_number", state.image_number + 1)
    assert state.image_class is None
    state.dataset.classes = [*state.dataset.classes, "unicorn"]
    with pytest.raises(SelfieLiteError, match="sample has no image of the class unicorn"):
        state.set("image_class", "unicorn")


def test_models_are_asked_only_when_something_of_theirs_has_changed(state, monkeypatch):
    looked = state.look()
    for change in (("view", "matrix"), ("location", state.masked[1]), ("view", "attention")):
        state.set(*change)
        assert state.look() is looked
    for change in (("seed", 9), ("image_number", 2), ("num_masked", 5), ("compare", "mask_token")):
        state.set(*change)
        assert state.look() is not looked
        looked = state.look()


def test_an_upload_never_hides_a_data_set(state):
    state.upload("sample", image_file())
    assert state.data_name == "./sample" and len(state.dataset) == 1
    state.set("data", "sample")
    assert len(state.dataset) == 1000


def test_what_has_no_name_is_a_variable_and_a_folder_of_that_name_is_none(additive, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "your data").mkdir()
    (tmp_path / "your data" / "a.png").write_bytes(image_file())
    named = InspectorState(additive, "your data")
    assert "PatchInspector(your_model, 'your data', " in code(named)
    given = InspectorState(additive, load_dataset("sample", "train"))
    assert "PatchInspector(your_model, your_data, " in code(given)


def test_long_sessions_let_go_of_what_was_opened_long_ago(state, tmp_path):
    for number in range(3 * sources.KEPT):
        state.upload(f"{number}.png", image_file())
        path = tmp_path / f"{number}.png"
        path.write_bytes(image_file())
        state.set("data", str(path))
    opened = state.sources
    assert len(opened.uploads) == opened.open_data.cache_info().currsize == sources.KEPT
    assert f"{number}.png" in opened.data_names() and "0.png" not in opened.data_names()
    state.set("data", str(tmp_path / "0.png"))  # by its path it is opened again
    for name in [f"{tmp_path}/absent-{n}" for n in range(3)]:
        with pytest.raises(SelfieLiteError):
            state.set("data", name)
        assert name not in opened.data_names()


def test_a_message_says_all_that_the_board_draws(state):
    state.set("compare", "mask_token")
    (name, first), (_, second) = state.look()
    told, puzzle = messages.beliefs(name, first), messages.puzzle(state)
    assert puzzle["masked"] == state.masked and sorted(puzzle["order"]) == [0, 1, 2, 3] and puzzle["crop"] is None
    torch.testing.assert_close(torch.tensor(told["probabilities"]), first.probabilities, atol=1e-4, rtol=0)
    assert (told["choices"], told["right"]) == (first.choices.tolist(), first.right)
    assert sorted(told["assigned"]) == [0, 1, 2, 3]
    best = max(permutations(range(4)), key=lambda order: sum(first.logits[i, k] for i, k in enumerate(order)))
    assert told["assigned"] == list(best) and told["right_once"] == sum(k == i for i, k in enumerate(best))
    packed = messages.beliefs("", second)["attention"]
    numbers = np.frombuffer(base64.b64decode(packed["weights"]), "<u2").reshape(packed["shape"]) / 65535
    assert packed["shape"] == [4, 9, 5, 12]
    for row, location in enumerate([None, *state.masked]):
        for block, head in ((None, None), (1, None), (None, 7), (2, 3)):
            at = 0 if block is None else 1 + block, 0 if head is None else 1 + head, row
            np.testing.assert_allclose(numbers[at], second.attention_from(location, block, head), atol=1e-5)


def test_a_puzzle_is_some_thousand_bytes(state):
    state.set("num_masked", 12)
    state.set("compare", "mask_token")
    sizes = [
        len(json.dumps(messages.puzzle(state))),
        *(len(json.dumps(messages.beliefs(*one))) for one in state.look()),
    ]
    assert max(sizes) < 16_000
    page = messages.still(InspectorState(compare="mask_token"), 20)
    assert len(json.dumps(page)) < 500_000 and len(page["puzzles"]) == len(
        {one["puzzle"]["id"] for one in page["puzzles"]}
    )
    assert list(page["puzzles"][3]["models"]) == ["additive", "mask_token"]


def test_a_page_of_puzzles_leaves_the_state_as_it_was(state):
    before = all_of(state)
    state._random.seed(5)
    messages.still(state, 2)
    again = [state._random.random(), state.seed]
    state._random.seed(5)
    assert again == [state._random.random(), 0] and all_of(state) == before


@pytest.mark.parametrize(
    ("size", "words"), [((60, 40), "60×40 pixels, cut to the"), ((90, 90), "90×90 pixels, shrunk")]
)
def test_what_is_cut_off_is_shown(state, size, words):
    state.upload("a.png", image_file(size))
    crop = messages.puzzle(state)["crop"]
    assert words in crop["words"] and crop["image"].startswith("data:image/jpeg")
    assert (crop["left"], crop["width"]) == (
        (pytest.approx(100 / 6), pytest.approx(200 / 3)) if size[0] == 60 else (0, 100)
    )


@pytest.mark.parametrize("view", VIEWS)
def test_pictures_come_from_a_state_alone(state, view):
    state.set("view", view)
    assert to_png(state, {state.masked[0]: 1}).startswith(b"\x89PNG")
    if view == "play":
        assert to_png(state, {}) != to_png(state, {state.masked[0]: 1})
