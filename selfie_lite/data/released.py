"""The downsampled ImageNet as it is released (Chrabaszcz, Loshchilov and Hutter 2017, arXiv 1707.08819): batches of
pixels (n, 3·S·S) uint8, red first, and labels 1 to 1,000, as .npz files or as pickles."""

import pickle
from importlib import import_module
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from selfie_lite.errors import SelfieLiteError
from selfie_lite.files import printable

NUMPY = {"_reconstruct", "scalar", "ndarray", "dtype", "encode", "_frombuffer"}  # what a pickle of arrays calls


def released_files(folder: Path) -> dict[str, list[Path]]:
    """The batches in a folder, or in the folders just below it, by split; none if there are none for training."""
    patterns = {"train": "train_data_batch_*", "test": "val_data*"}
    found = {s: sorted({*folder.glob(pattern), *folder.glob(f"*/{pattern}")}) for s, pattern in patterns.items()}
    return {split: files for split, files in found.items() if files} if found["train"] else {}


def read_released(path: Path, image_size: int) -> tuple[np.ndarray, np.ndarray]:
    """One batch: images (n, 3, S, S) uint8 and labels (n,) int64 from 0. Nothing in the file is executed.

    Raises:
        SelfieLiteError: if it is no such batch, or of another size.
    """
    try:
        with open(path, "rb") as file:
            batch = (
                np.load(file, allow_pickle=False) if path.suffix == ".npz" else _Arrays(file, encoding="latin1").load()
            )
            images, labels = np.asarray(batch["data"]), np.asarray(batch["labels"])
    except Exception as error:  # whatever the bytes of a damaged file lead NumPy and pickle to
        said = str(error) or type(error).__name__
        raise SelfieLiteError(f"{printable(path)} is no batch of the downsampled ImageNet: {said}") from None
    fits = images.dtype == np.uint8 and labels.dtype.kind in "iu" and labels.shape == images.shape[:1]
    if not fits or images.shape != (len(images), 3 * image_size**2) or not len(labels) or labels.min() < 1:
        raise SelfieLiteError(
            f"{printable(path)} should hold pixels (n, {3 * image_size**2}) uint8 and labels from 1, for --size "
            f"{image_size}, but holds {images.shape} {images.dtype} and {labels.shape} {labels.dtype}."
        )
    return images.reshape(-1, 3, image_size, image_size), labels.astype(np.int64) - 1


def _unpickle(file: BinaryIO) -> dict:
    return _Arrays(file, encoding="latin1").load()  # as written by Python 2, too


class _Arrays(pickle.Unpickler):
    """Reads arrays, lists, dictionaries and numbers, and refuses all else that a pickle may call."""

    def find_class(self, module: str, name: str) -> Any:
        if name in NUMPY and module.replace("._core", ".core") in (
            "numpy",
            "numpy.core.multiarray",
            "numpy.core.numeric",
            "_codecs",
        ):
            return getattr(import_module(module.replace("numpy.core", "numpy._core")), name)
        raise pickle.UnpicklingError(f"it calls {module}.{name}, which is not needed for arrays")
