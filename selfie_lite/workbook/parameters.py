"""The parameters of a notebook: checked before it runs, so that a misspelt one never starts a wrong run."""

import ast
from pathlib import Path

import yaml

from selfie_lite.errors import SelfieLiteError, suggestion


def refuse_unknown_parameters() -> None:
    """Called in a notebook: raise if papermill, which only warns, has set a name that the parameters cell lacks.

    Raises:
        SelfieLiteError: with the nearest right name.
    """
    from IPython import get_ipython

    cells = get_ipython().user_ns["In"]
    for before, cell in zip(cells, cells[1:], strict=False):
        if cell.startswith("# Parameters\n"):  # how papermill begins the cell that it puts behind the parameters
            known = _assigned(before)
            for name in _assigned(cell):
                if name not in known:
                    raise SelfieLiteError(f"this notebook has no parameter '{name}'.{suggestion(name, known)}")


def _assigned(code: str) -> list[str]:
    targets = [node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Name)]
    return [node.id for node in targets if isinstance(node.ctx, ast.Store)]


def read_parameters(pairs: list[tuple[str, str]], notebooks: list[Path]) -> dict[str, object]:
    """Parameter values as YAML reads them, checked against what the notebooks have.

    Raises:
        SelfieLiteError: for a name that none of the notebooks has, or a value of another type than its default.
    """
    import papermill

    known = {}
    for path in notebooks:
        known |= papermill.inspect_notebook(path)
    values = {}
    for name, text in pairs:
        if name not in known:
            raise SelfieLiteError(f"no parameter '{name}' in {_names(notebooks)}.{suggestion(name, known)}")
        value, type_name = yaml.safe_load(text), known[name]["inferred_type_name"]
        wanted = {"int": int, "float": (int, float), "bool": bool, "str": str}.get(type_name, object)
        if type_name == "str" and not isinstance(value, str):
            value = text  # "-p data 2019" names a folder
        if not isinstance(value, wanted) or (type_name != "bool" and isinstance(value, bool)):
            raise SelfieLiteError(f"parameter '{name}' takes {_kind(type_name)}, for instance "
                                  f"{known[name]['default']}, but '{text}' was given.")  # fmt: skip
        values[name] = value
    return values


def _names(notebooks: list[Path]) -> str:
    return notebooks[0].stem if len(notebooks) == 1 else f"any of {len(notebooks)} notebooks"


def _kind(type_name: str) -> str:
    return {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "text"}.get(
        type_name, type_name
    )
