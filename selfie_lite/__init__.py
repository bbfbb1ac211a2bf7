"""selfie-lite: self-supervised pretraining by picking hidden patches (Selfie, Trinh et al. 2019, arXiv 1906.02940)."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from selfie_lite.moved import keep_old_names

if TYPE_CHECKING:
    from selfie_lite.public import *  # noqa: F403

keep_old_names()


def __getattr__(name: str) -> Any:
    """Public names come with torch, which takes seconds: they are imported when the first is asked for."""
    if name.startswith("__") and name != "__all__":
        raise AttributeError(name)
    public = import_module("selfie_lite.public")
    return globals()[name] if name in globals() else getattr(public, name)


def __dir__() -> list[str]:
    return [*globals(), *__getattr__("__all__")]
