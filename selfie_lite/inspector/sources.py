"""Opening what the inspector looks at: models with their checkpoints, data sets, and single image files."""

import io
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from numpy import ndarray

from selfie_lite.data.catalog import KNOWN, data_cache
from selfie_lite.data.datasets import ImageDataset, ImageFiles, load_dataset
from selfie_lite.data.images import read_image
from selfie_lite.errors import DatasetNotFoundError, SelfieLiteError
from selfie_lite.selfie import Selfie
from selfie_lite.training.weights import known_models, load_history

KEPT = 6  # of each kind; what was opened longest ago is let go, so that a long session does not fill the memory

History = dict[int, Selfie]  # the model after every step that has a checkpoint
Dataset = ImageDataset | ImageFiles


class Sources:
    """What has been opened, by name, so that going back is quick. What has no name of its own is called "your model",
    "your other model" or "your data"."""

    def __init__(self) -> None:
        self.open_model = lru_cache(KEPT)(load_history)
        self.open_data = lru_cache(KEPT)(_open_dataset)
        self.uploads: dict[str, ImageDataset] = {}
        self.given: dict[str, Any] = {}  # what has no name
        self._paths: dict[str, None] = {}  # data sets by path, and models, in the order in which they were met
        self._runs: dict[str, None] = {}
        self._here = known_models(), _known_data()  # looked up once: with many runs it takes a while

    def model(self, source: str | Path | Selfie, name: str) -> tuple[str, History]:
        """The name of a model, and the model at every step that there is. name: of what has none of its own.

        Raises:
            SelfieLiteError: if there is none.
        """
        if isinstance(source, Selfie):
            self.given[name] = {0: source.eval()}
            return name, self.given[name]
        if str(source) in self.given:
            return str(source), self.given[str(source)]
        history = self.open_model(str(source))
        self._runs[str(source)] = None
        return str(source), history

    def dataset(self, source: str | Path | Dataset, name: str) -> tuple[str, Dataset]:
        """The name of a data set, and its test part, where there is one; an image file is a data set of one.

        Raises:
            SelfieLiteError: if there is none.
        """
        if isinstance(source, ImageDataset | ImageFiles):
            self.given[name] = source
            return name, source
        for there in (self.given, self.uploads):
            if str(source) in there:
                return str(source), there[str(source)]
        dataset = self.open_data(str(source))
        self._paths[str(source)] = None
        return str(source), dataset

    def upload(self, name: str, content: bytes) -> tuple[str, ImageDataset]:
        """An image file that came through the browser, as a data set of one, not kept yet; `keep` does that. The name
        is changed where it is that of a data set.

        Raises:
            SelfieLiteError: if it is no image.
        """
        if name in self._here[1] or name in self.given or name in self._paths:
            name = f"./{name}"
        return name, _one_image(name, read_image(io.BytesIO(content), name=name))

    def keep(self, name: str, image: ImageDataset) -> None:
        self.uploads.pop(name, None)  # it comes last
        self.uploads = dict([*self.uploads.items(), (name, image)][-KEPT:])

    def model_names(self) -> list[str]:
        """What `model` opens: bundled models, runs, and what was opened by path or given."""
        given = [name for name, what in self.given.items() if isinstance(what, dict)]
        return list(dict.fromkeys([*self._here[0], *self._runs, *given]))

    def data_names(self) -> list[str]:
        """What `dataset` opens."""
        given = [name for name, what in self.given.items() if not isinstance(what, dict)]
        return list(dict.fromkeys([*self._here[1], *self._paths, *self.uploads, *given]))


def _known_data() -> list[str]:
    here = {path.parent.name for path in data_cache().glob("*/dataset.json")}
    return ["sample", "photos", *sorted(here & {*KNOWN} - {"sample", "photos"}), *sorted(here - {*KNOWN})]


def _open_dataset(source: str) -> Dataset:
    if Path(source).expanduser().is_file():
        return _one_image(source, read_image(Path(source).expanduser()))
    try:
        return load_dataset(source, "test", download=False)
    except DatasetNotFoundError:
        raise
    except SelfieLiteError:  # it has no test part
        return load_dataset(source, "train", download=False)


def _one_image(name: str, pixels: ndarray) -> ImageDataset:
    images = torch.from_numpy(pixels).permute(2, 0, 1)[None].contiguous()
    return ImageDataset(name, "test", images, torch.zeros(1, dtype=torch.int64), ["your own"])
