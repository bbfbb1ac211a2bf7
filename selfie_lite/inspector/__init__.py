"""The patch inspector: look inside one image."""

from typing import Any

__all__ = ["PatchInspector"]


def __getattr__(name: str) -> Any:
    """The widget is loaded when it is asked for: the state below it needs none."""
    if name in __all__:
        from selfie_lite.inspector.panel import PatchInspector

        return PatchInspector
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
