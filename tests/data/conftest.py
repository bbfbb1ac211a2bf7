"""An empty data cache, and a small folder of images to import."""

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty data cache."""
    monkeypatch.setenv("SELFIE_LITE_DATA", str(tmp_path / "cache"))
    (tmp_path / "cache").mkdir()
    return tmp_path / "cache"


@pytest.fixture
def pets(tmp_path):
    """A folder of 32×32 images in two classes: 5 + 5 for training, 2 + 1 for tests."""
    counts = {"train/cat": 5, "train/dog": 5, "val/cat": 2, "val/dog": 1}
    for seed, (folder, count) in enumerate(counts.items()):
        (tmp_path / "pets" / folder).mkdir(parents=True)
        for i in range(count):
            pixels = np.random.default_rng(10 * seed + i).integers(0, 256, (32, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "pets" / folder / f"{i}.png")
    return tmp_path / "pets"
