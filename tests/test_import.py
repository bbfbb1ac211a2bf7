"""What `import selfie_lite` brings along, and what it says when torch and torchvision do not fit."""

import importlib
import os
import subprocess
import sys

import pytest
from tiny import make_data

import selfie_lite
from selfie_lite import moved


def run(code, cwd=None, **environment):
    environment = {**os.environ, **{name: str(value) for name, value in environment.items()}}
    command = [sys.executable, "-c", code]
    return subprocess.run(command, env=environment, cwd=cwd, capture_output=True, text=True, timeout=300)


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
    result = run("from selfie_lite import Selfie", PYTHONPATH=tmp_path)
    assert result.returncode == 1
    last = result.stderr.strip().splitlines()[-1]
    assert last.startswith("ImportError: torch ") and "torchvision" in last and error.split('"')[1] in last
    assert "python -m pip install --force-reinstall torch torchvision" in last
    assert "The above exception" not in result.stderr and "During handling" not in result.stderr
    assert result.stderr.count("Traceback") == 1 and str(tmp_path) not in result.stderr
    command = run(
        "import sys; from selfie_lite.cli import main; sys.argv[1:] = ['pretrain']; main()", PYTHONPATH=tmp_path
    )
    assert command.returncode == 2 and "--force-reinstall" in command.stderr and "Traceback" not in command.stderr


def test_help_and_the_bare_package_come_without_torch():
    code = """
import sys
import selfie_lite
sys.argv = ["selfie-lite", "--help"]
from selfie_lite.cli import main
main()
print(sorted({"torch", "numpy", "matplotlib", "selfie_lite.public"} & set(sys.modules)))
assert "Selfie" in dir(selfie_lite) and not hasattr(selfie_lite, "Selfy")
"""
    result = run(code)
    assert result.returncode == 0 and result.stdout.endswith("[]\n") and "reproduce" in result.stdout, result.stderr


def test_library_and_training_need_no_extra(tmp_path):
    """As in an environment that has the library's own dependencies alone: anything of the extras refuses to come."""
    make_data(tmp_path / "cache")
    code = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in EXTRAS:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Refuse())
from selfie_lite import *
from selfie_lite.cli import main
sys.argv = ["selfie-lite", *WORDS]
main()
"""
    extras = [
        "IPython",
        "anywidget",
        "ipywidgets",
        "jupyterlab",
        "nbconvert",
        "nbval",
        "papermill",
        "pytest",
        "timm",
        "voila",
    ]
    words = "pretrain --data tiny --steps 2 --batch-size 4 --held-out 8 --image-size 16 --patch-size 4 --save-every 2"
    done = run(f"EXTRAS = {extras}\nWORDS = {words.split()}" + code, SELFIE_LITE_DATA=tmp_path / "cache", cwd=tmp_path)
    assert done.returncode == 0 and (tmp_path / "runs/laptop/checkpoint").is_dir(), done.stderr
    inspect = run(f"EXTRAS = {extras}\nWORDS = ['inspect']" + code)
    assert inspect.returncode == 2 and "pip install 'selfie-lite[notebooks]'" in inspect.stderr, inspect.stderr


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
