"""The patch inspector: look inside one image."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from selfie_lite.inspector.panel import PatchInspector

__all__ = ["PatchInspector"]


def __getattr__(name: str) -> object:
    """The widget is loaded when it is asked for: the state below it needs none."""
    if name == "PatchInspector":
        from selfie_lite.inspector.panel import PatchInspector

        return PatchInspector
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
