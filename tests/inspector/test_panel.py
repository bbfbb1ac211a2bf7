"""The widget without a browser: what is sent to the board, what the board asks for, and what is left after it."""

import base64
import io
import json
import shutil

import ipywidgets
import pytest
from PIL import Image
from tiny import config, make_data

from selfie_lite import PatchGrid, Selfie, SelfieLiteError, load_dataset
from selfie_lite.inspector import panel
from selfie_lite.inspector.panel import STILL, PatchInspector
from selfie_lite.inspector.state import VIEWS
from selfie_lite.training.pretrain import pretrain
from selfie_lite.training.weights import load_history, load_pretrained


@pytest.fixture(autouse=True)
def workplace(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def models():
    return {name: load_pretrained(name) for name in ("additive", "mask_token")}


@pytest.fixture
def inspector():
    return PatchInspector()


@pytest.fixture
def sent(inspector, monkeypatch):
    """The names of the traits in each message to the board, and the size of the message."""
    messages = []
    monkeypatch.setattr(inspector.comm, "send", lambda data=None, **rest: messages.append(data))

    def read():
        found = [({*data["state"]}, len(json.dumps(data))) for data in messages if data["method"] == "update"]
        messages.clear()
        return found

    return read


def ask(inspector, buffers=(), **wish):
    """As the board does; gives what is said of it."""
    inspector._asked(inspector, wish, list(buffers))
    return inspector.message


def photo(size=(60, 40), kind="JPEG"):
    buffer = io.BytesIO()
    Image.new("RGB", size, (200, 30, 30)).save(buffer, kind)
    return buffer.getvalue()


def test_opens_with_a_puzzle_to_play(inspector):
    assert (inspector.shown["view"], inspector.message, inspector.second) == ("play", "", {})
    assert inspector.puzzle["masked"] == inspector.state.masked and inspector.first["name"] == "additive"
    assert inspector.lines == inspector.code() and inspector.to_png().startswith(b"\x89PNG")


def test_a_puzzle_is_sent_once_and_looking_at_it_sends_nothing_of_it(inspector, sent):
    ask(inspector, set=["image_number", 7])
    ((names, size),) = sent()
    assert {"puzzle", "first", "turn"} <= names and not {"second", "lists"} & names and size < 12_000
    ask(inspector, set=["compare", "mask_token"])
    ((names, _),) = sent()
    assert "second" in names and not {"puzzle", "first"} & names, "only the second model is new"
    for change in (
        {"view": "matrix"},
        {"location": inspector.state.masked[2]},
        {"view": "attention", "block": 1, "head": 2},
    ):
        inspector.set_state({"shown": inspector.shown | change})  # as the board does
        assert all(size < 1000 and not {"puzzle", "first", "second"} & names for names, size in sent())
        assert all(getattr(inspector.state, name) == value for name, value in change.items())
        assert inspector.lines == inspector.code()
    ask(inspector, set=["num_masked", 9])
    ((names, _),) = sent()
    assert {"puzzle", "first", "second"} <= names


@pytest.mark.parametrize(
    ("wish", "change"),
    [({"set": ["image_class", "ship"]}, {"puzzle", "first"}), ({"set": ["seed", 3]}, {"puzzle", "first"}),
     ({"set": ["model", "mask_token"]}, {"first"}), ({"set": ["data", "photos"]}, {"puzzle", "first", "lists"}),
     ({"do": ["random_image"]}, {"puzzle", "first"}), ({"do": ["next_puzzle"]}, {"puzzle", "first"}),
     ({"do": ["toggle", 5]}, {"puzzle", "first"})],
)  # fmt: skip
def test_each_wish_is_one_message(inspector, sent, wish, change):
    assert ask(inspector, **wish) == ""
    ((names, _),) = sent()
    assert change <= names and "chosen" in names or wish["do"][0] in ("toggle", "random_image")


def test_what_is_asked_of_the_puzzle_before_is_taken_back_in_silence(inspector):
    gone = next(at for at in range(16) if at not in inspector.state.masked)
    inspector.set_state({"shown": inspector.shown | {"location": gone}})
    assert inspector.message == "" and inspector.shown["location"] == inspector.state.location in inspector.state.masked


def test_two_checkpoints_of_a_run_and_their_slider(tmp_path, monkeypatch):
    monkeypatch.setenv("SELFIE_LITE_DATA", str(tmp_path / "cache"))
    make_data(tmp_path / "cache")
    pretrain(config(name="mine"))
    assert list(load_history("mine")) == [0, 4, 8, 12]
    inspector = PatchInspector("mine", view="guess")
    assert inspector.lists["steps"] == [0, 4, 8, 12] and inspector.chosen["step"] == 12
    seen = {}
    for step in (0, 4, 8, 12):
        assert ask(inspector, set=["step", step]) == ""
        seen[step] = str(inspector.first["probabilities"])
    assert len({*seen.values()}) == 4 and "step=12" in inspector.code()
    assert str(PatchInspector("mine", step=4).first["probabilities"]) == seen[4]
    with pytest.raises(SelfieLiteError, match="no checkpoint of step 5; there are: 0, 4, 8, 12"):
        PatchInspector("mine", step=5)
    both = PatchInspector("mine", compare="mine", step=4)
    assert (both.first["name"], both.second["name"]) == ("mine, step 4", "mine, the newest step")
    other = PatchInspector(Selfie(PatchGrid(16, 4), arch="resnet18"), "tiny")
    shutil.rmtree("runs/mine")
    assert ask(both, set=["step", 8]) == "", "what is open stays open"
    assert "unknown model 'mine'" in ask(other, set=["model", "mine"]) and other.chosen["model"] == "your model"


def test_uploads_and_their_errors(inspector):
    good = inspector.puzzle
    assert "cat.jpg: cannot be read" in ask(inspector, [b"no image"], upload="cat.jpg")
    assert "cat.jpg" in ask(inspector, [b""], upload="cat.jpg")
    assert "20×31 pixels, but the model takes 32×32" in ask(inspector, [photo((20, 31))], upload="cat.jpg")
    assert inspector.puzzle == good
    assert ask(inspector, [memoryview(photo())], upload="cat.jpg") == ""
    assert inspector.chosen["data"] == "cat.jpg" and "cut to the square" in inspector.puzzle["crop"]["words"]
    assert ask(inspector, set=["data", "sample"]) == "" and inspector.lists["images"] == 1000
    assert ask(inspector, set=["data", "cat.jpg"]) == "" and "cat.jpg" in inspector.lists["data"]


def test_a_file_of_ones_own_by_path(tmp_path):
    (tmp_path / "dog.png").write_bytes(photo((300, 200), "PNG"))
    assert "'dog.png'" in PatchInspector(dataset="dog.png").code()


def test_errors_leave_everything_as_it_was_and_the_widget_usable(inspector):
    inspector.state.sources.model(Selfie(PatchGrid(224, 32), arch="resnet18").eval(), "large")
    good = inspector.puzzle, inspector.first, inspector.chosen
    assert "cannot share one mask" in ask(inspector, set=["compare", "large"])
    assert "32×32 pixels, but the model takes 224×224" in ask(inspector, set=["model", "large"])
    assert (inspector.puzzle, inspector.first, inspector.chosen) == good
    assert ask(inspector, set=["data", "photos"]) == "" and ask(inspector, set=["model", "large"]) == ""
    assert inspector.puzzle["side"] == 7 and len(inspector.puzzle["masked"]) == 12
    assert "32×32 pixels" in ask(inspector, set=["data", "sample"]) and inspector.chosen["data"] == "photos"
    with pytest.raises(SelfieLiteError, match="seed must lie between"):
        inspector.set(view="matrix", seed=-1)
    assert inspector.shown["view"] == "matrix", "what came before is shown"


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"model": "aditive"}, "Did you mean 'additive'"),
        ({"dataset": "smple"}, "Did you mean 'sample'"),
        ({"view": "gess"}, "Did you mean 'guess'"),
        ({"image_number": 1000}, "between 0 and 999, but is 1000"),
        ({"masked": [1, 1]}, "1 to 15 different locations"),
        ({"masked": [16]}, "from 0 to 15"),
        ({"masked": [3], "location": 4}, "location 4 is not hidden; hidden are 3"),
        ({"head": 8}, "head runs from 0 to 7, but is 8"),
        ({"dataset": "photos", "model": Selfie(PatchGrid(448, 64), arch="resnet18")}, "the model takes 448×448"),
        (
            {"compare": Selfie(PatchGrid(32, 8), arch="resnet18", pooling="mean"), "view": "attention"},
            "your other model has no attention to show",
        ),
    ],
)
def test_bad_arguments_are_refused_and_leave_no_widget(arguments, error):
    before = open_widgets()
    with pytest.raises(SelfieLiteError, match=error):
        PatchInspector(**arguments)
    assert open_widgets() == before


@pytest.mark.parametrize("view", VIEWS)
def test_two_lines_rebuild_the_view(view):
    inspector = PatchInspector(
        "mask_token", compare="additive", image_number=5, masked=[0, 5, 7], location=5, view=view
    )
    inspector.set(block=1, head=3, seed=4)
    inspector.set(location=inspector.state.masked[1])
    lines = inspector.code().splitlines()
    space = {}
    exec(lines[0], space)
    again = eval(lines[1], space)
    assert len(lines) == 2 and repr(inspector) == lines[1] == repr(again) and again.to_png() == inspector.to_png()


def test_what_has_no_name_stands_in_the_lines_as_a_variable(inspector):
    model, other = (Selfie(PatchGrid(32, 8), arch="resnet18").eval() for _ in range(2))
    data = load_dataset("sample", "train")  # by its name one would get the test part
    unnamed = PatchInspector(model, data, compare=other, view="guess")
    assert "PatchInspector(your_model, your_data, compare=your_other_model, image" in unnamed.code()
    again = eval(repr(unnamed), globals() | {"your_model": model, "your_other_model": other, "your_data": data})
    assert (again.first, again.second) == (unnamed.first, unnamed.second)
    ask(unnamed, set=["compare", None])
    ask(unnamed, set=["compare", "your other model"])
    assert again.second == unnamed.second, "the second is not the first"
    assert ask(unnamed, set=["data", "sample"]) == "" and len(unnamed.state.dataset) == 1000
    ask(inspector, [photo()], upload="sample")
    assert ask(inspector, set=["data", "sample"]) == "" and len(inspector.state.dataset) == 1000, (
        "a file is no data set"
    )


@pytest.mark.parametrize("count", [1, 15])
def test_all_but_one_hidden_and_all_but_one_shown(inspector, count):
    for view in VIEWS:
        inspector.set(view=view, num_masked=count)
        assert len(inspector.puzzle["masked"]) == count and inspector.to_png().startswith(b"\x89PNG")


def test_saved_where_python_is_and_sent_to_where_the_browser_is(inspector, monkeypatch):
    path = inspector.save()
    assert path.name == "sample-0-play.png" and path.read_bytes() == inspector.to_png()
    with pytest.raises(SelfieLiteError, match="could not be written"):
        inspector.save(path / "inside.png")
    got = []
    monkeypatch.setattr(inspector, "send", lambda *message: got.append(message))
    assert ask(inspector, save=True) == "" and got == [({"save": "sample-0-play.png"}, [inspector.to_png()])]
    empty = inspector.to_png()
    row = {str(inspector.state.masked[0]): 1}
    inspector.set_state({"played": {"id": inspector.puzzle["id"], "placed": row, "checked": False}})
    assert inspector.to_png() != empty, "the picture shows what has been placed"
    inspector.set_state({"played": {"id": "another puzzle", "placed": row, "checked": False}})
    assert inspector.to_png() == empty


def test_an_output_has_a_picture_with_words_and_puzzles_for_pages(inspector):
    data, about = inspector._repr_mimebundle_()
    assert base64.b64decode(data["image/png"]) == inspector.to_png() and "of 4 right" in about["image/png"]["alt"]
    assert data["text/plain"] == repr(inspector) and "application/vnd.jupyter.widget-view+json" in data
    (one,) = json.loads(data[STILL])["puzzles"]
    assert one["puzzle"] == inspector.puzzle and one["models"] == {"additive": inspector.first}


def test_two_widgets_share_no_state():
    one, two = PatchInspector(), PatchInspector()
    before = two.puzzle, two.first, two.chosen, two.lists
    one.set(image_number=9, view="puzzle", num_masked=8)
    ask(one, [photo()], upload="cat.jpg")
    ask(one, set=["data", "photos"])
    assert (two.puzzle, two.first, two.chosen, two.lists) == before and two.shown["view"] == "play"


def open_widgets():
    return len(ipywidgets.widgets.widget._instances)


def test_closing_leaves_no_widget_behind():
    before = open_widgets()
    inspector = PatchInspector(compare="mask_token")
    assert open_widgets() == before + 2, "the board and its layout"
    inspector.close()
    inspector.close()
    assert open_widgets() == before and inspector.comm is None


def test_a_cell_that_is_run_again_closes_what_it_made_before(monkeypatch, models):
    shell = type("Shell", (), {"get_parent": lambda self: self.parent})()
    monkeypatch.setattr(panel, "get_ipython", lambda: shell)

    def run(cell, execution, count=1):
        shell.parent = {"metadata": {"cellId": cell} if cell else {}, "header": {"msg_id": execution}}
        return [PatchInspector(models["additive"]) for _ in range(count)]

    before, each = open_widgets(), 2
    (one,) = run("a", "1")
    run("a", "2")
    assert open_widgets() == before + each and one.comm is None
    two = run("b", "3", count=2)
    assert open_widgets() == before + 3 * each and all(inspector.comm for inspector in two), "one cell may make two"
    run("b", "4")
    assert open_widgets() == before + 2 * each
    run("", "5")
    assert open_widgets() == before + 3 * each, "who does not say which cell it is keeps all"
