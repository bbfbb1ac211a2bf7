"""What `import selfie_lite` brings along, and what it says when torch and torchvision do not fit."""

import importlib
import os
import subprocess
import sys

import pytest

import selfie_lite
from selfie_lite import moved


def run(code, **environment):
    environment = {**os.environ, **{name: str(value) for name, value in environment.items()}}
    return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120)


def test_neither_jupyter_nor_matplotlib():
    code = """
import sys, selfie_lite, selfie_lite.data.importing
heavy = {"jupyter", "jupyter_core", "jupyterlab", "IPython", "ipykernel", "ipywidgets", "papermill", "nbformat",
         "matplotlib", "pandas"}
print(sorted(heavy & {name.split(".")[0] for name in sys.modules}))
"""
    result = run(code)
    assert result.stdout == "[]\n", result.stderr


@pytest.mark.parametrize(
    "error",
    [
        'RuntimeError("operator torchvision::nms does not exist")',
        'ImportError("undefined symbol: _ZN3c10")',
        'OSError("libcudart.so.13: cannot open shared object file")',
    ],
)
def test_a_torchvision_that_does_not_fit(tmp_path, error):
    (tmp_path / "torchvision").mkdir()
    (tmp_path / "torchvision" / "__init__.py").write_text(f"raise {error}\n")
    result = run("import selfie_lite", PYTHONPATH=tmp_path)
    assert result.returncode == 1
    last = result.stderr.strip().splitlines()[-1]
    assert last.startswith("ImportError: torch ") and "torchvision" in last and error.split('"')[1] in last
    assert "python -m pip install --force-reinstall torch torchvision" in last
    assert "The above exception" not in result.stderr and "During handling" not in result.stderr
    assert result.stderr.count("Traceback") == 1 and str(tmp_path) not in result.stderr


def test_every_public_name_is_there():
    assert selfie_lite.__all__ == sorted(selfie_lite.__all__)
    for name in selfie_lite.__all__:
        assert getattr(selfie_lite, name) is not None


@pytest.mark.parametrize("name", sorted(moved.MOVED))
def test_modules_are_found_by_their_old_names(name):
    place = importlib.import_module(f"selfie_lite.{moved.MOVED[name]}")
    public = [word for word in vars(place) if not word.startswith("_")] or ["PatchInspector"]
    old = importlib.import_module(f"selfie_lite.{name}")
    assert all(getattr(old, word) is getattr(place, word) for word in public)


def test_old_names_of_the_readme():
    from selfie_lite.pretrained import load_pretrained
    from selfie_lite.widgets import PatchInspector as Old

    from selfie_lite.inspector import PatchInspector
    from selfie_lite.training.weights import load_pretrained as new

    assert load_pretrained is new and Old is PatchInspector
