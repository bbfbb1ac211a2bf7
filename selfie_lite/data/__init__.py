"""Data sets: which there are, reading them, and bringing images in."""

from selfie_lite.data.catalog import data_cache
from selfie_lite.data.datasets import ImageDataset, ImageFiles, load_dataset

__all__ = ["ImageDataset", "ImageFiles", "data_cache", "load_dataset"]
