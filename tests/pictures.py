"""Small image files to read."""

import numpy as np
from PIL import Image


def random_pixels(height=6, width=5, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def write_images(root, *names):
    """One small image a name, each of another colour; gives the colours."""
    colours = {}
    for i, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        colours[name] = (10 * i, 255 - 10 * i, 7 * i)
        Image.new("RGB", (6, 6), colours[name]).save(path)
    return colours
