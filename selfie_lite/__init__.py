"""selfie-lite: self-supervised pretraining by picking hidden patches (Selfie, Trinh et al. 2019, arXiv 1906.02940)."""

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

from selfie_lite.moved import keep_old_names

if TYPE_CHECKING:
    from selfie_lite.public import *  # noqa: F403

keep_old_names()


class Package(ModuleType):
    """This package: its module `augment` does not hide the public function of that name."""

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name == "augment" and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = Package


def __getattr__(name: str) -> Any:
    """Public names come with torch, which takes seconds: they are imported when the first is asked for."""
    if name.startswith("__") and name != "__all__":
        raise AttributeError(name)
    public = import_module("selfie_lite.public")
    return globals()[name] if name in globals() else getattr(public, name)


def __dir__() -> list[str]:
    return [*globals(), *__getattr__("__all__")]
