"""The names that modules had before they stood in wings: code and notebooks of users that say them go on working."""

import sys
from functools import partial
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

MOVED = {
    "bench": "benchmarks.pretraining",
    "checkpoint": "training.checkpoint",
    "classifier": "training.finetune",
    "compare": "evaluation.results",
    "data_import": "data.importing",
    "evaluate": "evaluation.probes",
    "exercises": "workbook.exercises",
    "figures": "workbook.figures",
    "parameters": "workbook.parameters",
    "pretrain": "training.pretrain",
    "pretrained": "training.weights",
    "sweep": "workbook.sweep",
    "walkthrough": "workbook.walkthrough",
    "widgets": "inspector",
}


class Moved(MetaPathFinder, Loader):
    """Finds `selfie_lite.OLD`, and gives a module that hands out what its new place has."""

    def find_spec(self, fullname: str, path: object = None, target: ModuleType | None = None) -> ModuleSpec | None:
        package, _, name = fullname.partition(".")
        return ModuleSpec(fullname, self) if package == "selfie_lite" and name in MOVED else None

    def create_module(self, spec: ModuleSpec) -> None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        place = import_module(f"selfie_lite.{MOVED[module.__name__.partition('.')[2]]}")
        module.__getattr__ = partial(getattr, place)  # type: ignore[method-assign]


def keep_old_names() -> None:
    """Called once, by `import selfie_lite`. Finders before this one find the modules that are really there."""
    if not any(isinstance(finder, Moved) for finder in sys.meta_path):
        sys.meta_path.append(Moved())
