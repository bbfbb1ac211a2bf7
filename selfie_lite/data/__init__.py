"""Data sets: which there are, reading them, and bringing images in."""

from selfie_lite.data.datasets import ImageDataset, ImageFiles, load_dataset

__all__ = ["ImageDataset", "ImageFiles", "load_dataset"]
