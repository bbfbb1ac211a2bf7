"""Parameters of notebooks: numbers as people write them, and mistakes that are told."""

from types import SimpleNamespace

import pytest

from selfie_lite import SelfieLiteError
from selfie_lite.workbook.parameters import read_value, refuse_unknown_parameters


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("1e-3", "float", 0.001),
        ("5E-4", "float", 0.0005),
        (".5", "float", 0.5),
        ("1", "float", 1.0),
        ("1e3", "int", 1000),
        ("-2", "int", -2),
        ("12345678901234567890", "int", 12345678901234567890),
        ("Yes", "bool", True),
        ("off", "bool", False),
        ("2019", "str", "2019"),
        ("my: pets # 1", "str", "my: pets # 1"),
        ("[1, 2]", "None", [1, 2]),
    ],
)
def test_values_as_people_write_them(text, kind, value):
    read = read_value("x", text, kind)
    assert read == value and type(read) is type(value)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("1.5", "int"),
        ("many", "int"),
        ("nan", "float"),
        ("inf", "int"),
        ("1e999", "float"),
        ("2", "bool"),
        ("", "float"),
    ],
)
def test_values_that_cannot_be(text, kind):
    with pytest.raises(SelfieLiteError, match="parameter 'x' takes"):
        read_value("x", text, kind)


def injected(monkeypatch, cell, **names):
    known = "rate: float = 0.1  # of learning\nsteps: int = 3\ndata: str = 'a'"
    names = {"rate": 0.1, "steps": 3, "data": "a", "In": ["", known, "# Parameters\n" + cell]} | names
    monkeypatch.setattr("IPython.get_ipython", lambda: SimpleNamespace(user_ns=names))
    refuse_unknown_parameters()
    return names


def test_in_a_notebook_text_that_is_a_number_becomes_one(monkeypatch):
    names = injected(monkeypatch, "rate = '1e-3'\ndata = '1e-3'", rate="1e-3", data="1e-3")
    assert names["rate"] == 0.001 and names["data"] == "1e-3"
    with pytest.raises(SelfieLiteError, match="'steps' takes a whole number"):
        injected(monkeypatch, "steps = 'a few'", steps="a few")
    with pytest.raises(SelfieLiteError, match="no parameter 'step'. Did you mean 'steps'"):
        injected(monkeypatch, "step = 4", step=4)
