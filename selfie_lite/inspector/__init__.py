"""The patch inspector: look inside one image."""

from selfie_lite.inspector.panel import PatchInspector

__all__ = ["PatchInspector"]
