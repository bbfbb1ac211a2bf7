"""The parameters of a notebook: checked before it runs, so that a misspelt one never starts a wrong run."""

import ast
import math
from pathlib import Path

import yaml

from selfie_lite.errors import SelfieLiteError, suggestion

TRUE, FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")
KINDS = {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "text"}


def refuse_unknown_parameters() -> None:
    """Called in a notebook: raise if papermill, which only warns, has set a name that the parameters cell lacks, or
    text where a number belongs; 1e-3, which YAML takes for text, becomes the number.

    Raises:
        SelfieLiteError: with the nearest right name.
    """
    from IPython import get_ipython

    names = get_ipython().user_ns
    for before, cell in zip(names["In"], names["In"][1:], strict=False):
        if cell.startswith("# Parameters\n"):  # how papermill begins the cell that it puts behind the parameters
            known = _assigned(before)
            for name in _assigned(cell):
                if name not in known:
                    raise SelfieLiteError(f"this notebook has no parameter '{name}'.{suggestion(name, known)}")
                if known[name] != "str" and isinstance(names[name], str):
                    names[name] = read_value(name, names[name], known[name])


def read_parameters(pairs: list[tuple[str, str]], notebooks: list[Path]) -> dict[str, object]:
    """Parameter values from a command line, checked against what the notebooks have.

    Raises:
        SelfieLiteError: for a name that none of the notebooks has, or a value of another type than its default.
    """
    from selfie_lite.workbook.notebook import parameters_of

    known: dict[str, dict] = {}
    for path in notebooks:
        known |= parameters_of(path)
    values = {}
    for name, text in pairs:
        if name not in known:
            raise SelfieLiteError(f"no parameter '{name}' in {_names(notebooks)}.{suggestion(name, known)}")
        values[name] = read_value(name, text, known[name]["inferred_type_name"], known[name]["default"])
    return values


def read_value(name: str, text: str, kind: str, example: str = "") -> object:
    """The value of a parameter as people write it: 1e-3 is a number, 1e3 a whole one, 2019 the name of a folder.

    Args:
        kind: int, float, bool or str; text of any other kind stays text.

    Raises:
        SelfieLiteError: if it is none of that kind.
    """
    try:
        if kind == "str":
            return text
        if kind == "bool":
            return {word: word in TRUE for word in TRUE + FALSE}[text.strip().lower()]
        if kind not in KINDS:  # a parameter without a type
            return yaml.safe_load(text)
        number = float(text)
        if not math.isfinite(number) or (kind == "int" and not number.is_integer()):
            raise ValueError
        return number if kind == "float" else int(text) if text.strip().lstrip("+-").isdigit() else int(number)
    except (ValueError, KeyError, OverflowError, yaml.YAMLError):
        for_instance = f", for instance {example}," if example else ""
        wanted = KINDS.get(kind, "a value in YAML")
        raise SelfieLiteError(f"parameter '{name}' takes {wanted}{for_instance} but '{text}' was given.") from None


def _assigned(code: str) -> dict[str, str]:
    """{name: its annotation} of what a cell assigns."""
    names = {}
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names[node.target.id] = ast.unparse(node.annotation)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.setdefault(node.id, "")
    return names


def _names(notebooks: list[Path]) -> str:
    return notebooks[0].stem if len(notebooks) == 1 else f"any of {len(notebooks)} notebooks"
