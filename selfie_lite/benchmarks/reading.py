"""How fast image files become training crops, and how much memory the processes that read them take."""

import os
import re
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from selfie_lite.augment import random_resized_crop_flip
from selfie_lite.benchmarks.step import Step
from selfie_lite.benchmarks.timing import speeds
from selfie_lite.data.datasets import ImageDataset, ImageFiles, load_dataset
from selfie_lite.data.folders import FileNames
from selfie_lite.data.importing import import_folder
from selfie_lite.training.batches import read_batches
from selfie_lite.training.pretrain import PretrainConfig

FILES, WIDTH, HEIGHT, BORDER = 120, 500, 375, 256
OURS, USUAL = "selfie-lite", "torchvision ImageFolder, RandomResizedCrop, DataLoader"
IMAGENET, READERS = 1_281_167, 16


def bench_input(config: PretrainConfig, turns: Callable) -> dict:
    """Random crops and flips of JPEG files by worker processes, ours beside the usual choice; beside a file that holds
    all of them, arrays with a border, and what the step takes."""
    step, size, batch = Step(config.updated(steps=10**9)), max(config.image_size, 224), config.batch_size
    crops = v2.Compose([v2.RandomResizedCrop(size), v2.RandomHorizontalFlip(), v2.PILToTensor()])
    workers = [n for n in (1, 2, 4, 8, 16, 32) if n <= (os.cpu_count() or 1)]
    with tempfile.TemporaryDirectory() as place:
        measured_bytes = write_photos(Path(place) / "photos")
        files, usual = load_dataset(Path(place) / "photos", image_size=size), ImageFolder(f"{place}/photos", crops)
        assert isinstance(files, ImageFiles)
        packed, arrays = other_forms(Path(place), size)
        candidates: dict[str, Callable] = {"step": step}
        counts = {"step": batch}
        for n in workers:
            parts = 8 * n
            candidates[f"{OURS}, {n}"] = partial(_read, files, parts, batch, n)
            candidates[f"{USUAL}, {n}"] = partial(_read_usual, usual, parts, batch, n)
            counts |= {f"{name}, {n}": parts * batch for name in (OURS, USUAL)}
        candidates["one packed file, in this process"] = partial(_read, packed, 2, batch, 0)
        candidates[f"arrays of {BORDER}×{BORDER}, in this process"] = partial(_crop, arrays, 2, batch, size)
        counts |= {name: 2 * batch for name in candidates if name.endswith("in this process")}
        times = turns(candidates)
    rows = speeds(times, counts, "step")
    for n in workers:
        both = speeds(times, counts, f"{USUAL}, {n}")
        rows[f"{OURS}, {n}"]["times_the_usual"] = both[f"{OURS}, {n}"][f"times_{USUAL}, {n}"]
    enough = [n for n in workers if rows[f"{OURS}, {n}"]["times_step"]["median"] >= 1]
    return {
        "files": f"{FILES} JPEG files of {WIDTH}×{HEIGHT} pixels, mosaics of the bundled photos",
        "crops": f"{size}×{size} pixels, 8 % to 100 % of the area",
        "bytes_an_image": {"file": measured_bytes, f"array of {BORDER}×{BORDER}": 3 * BORDER**2},
        "rows": rows,
        "fewest_that_keep_up_with_the_step": f"{enough[0]} workers" if enough else f"more than {workers[-1]} workers",
        "memory": reader_memory(),
    }


def write_photos(folder: Path) -> int:
    """Mosaics of the bundled photos as JPEG files; gives their mean size in bytes."""
    photos, rng = load_dataset("photos").batch(range(10))[0].permute(0, 2, 3, 1).numpy(), np.random.default_rng(0)
    (folder / "train" / "any").mkdir(parents=True)
    for number in range(FILES):
        tiles = photos[rng.permutation(len(photos))[:6]].reshape(2, 3, 224, 224, 3)
        whole = tiles.transpose(0, 2, 1, 3, 4).reshape(448, 672, 3)
        top, left = rng.integers(0, 448 - HEIGHT), rng.integers(0, 672 - WIDTH)
        picture = Image.fromarray(whole[top : top + HEIGHT, left : left + WIDTH])
        picture.save(folder / "train" / "any" / f"{number:04}.jpg", quality=92)
    return sum(path.stat().st_size for path in folder.rglob("*.jpg")) // FILES


def other_forms(place: Path, size: int) -> tuple[ImageFiles, Tensor]:
    """The same photos as an import keeps them, and as arrays with a border around the crop of evaluation."""
    before = os.environ.get("SELFIE_LITE_DATA")
    os.environ["SELFIE_LITE_DATA"] = str(place / "cache")
    try:
        import_folder("packed", place / "photos", size, workers=0)
        packed = load_dataset("packed")
    finally:
        os.environ.pop("SELFIE_LITE_DATA")
        os.environ.update({} if before is None else {"SELFIE_LITE_DATA": before})
    assert not isinstance(packed, ImageDataset)
    squares = load_dataset(place / "photos", image_size=BORDER).batch(range(FILES))[0].contiguous()
    return packed, squares


def _read(dataset: ImageFiles, parts: int, batch: int, workers: int) -> None:
    drawn = torch.Generator().manual_seed(0)
    asked = (
        (torch.randint(len(dataset), (batch,), generator=drawn), torch.rand((batch, 5), generator=drawn))
        for _ in range(parts)
    )
    for _ in read_batches(dataset, asked, workers, torch.device("cpu")):
        pass


def _read_usual(dataset: ImageFolder, parts: int, batch: int, workers: int) -> None:
    sampler = torch.utils.data.RandomSampler(dataset, replacement=True, num_samples=parts * batch)
    for _ in DataLoader(dataset, batch, sampler=sampler, num_workers=workers):
        pass


def _crop(arrays: Tensor, parts: int, batch: int, size: int) -> None:
    for _ in range(parts):
        images = arrays[torch.randint(len(arrays), (batch,))]
        random_resized_crop_flip(images[..., :size, :size])  # as many pixels as a crop out of all of it


class Names(ImageFiles):
    """Only looks at names, and says how much memory this process has for its own, in MB: shared pages count by their
    share."""

    def __post_init__(self) -> None:
        pass

    def batch(self, part: slice) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        for index in range(*part.indices(len(self.paths))):
            self.paths[index]
        said = re.search(r"^Pss: +(\d+)", Path("/proc/self/smaps_rollup").read_text(), re.MULTILINE)
        return torch.tensor([int(said[1]) / 1000 if said else 0.0]), torch.zeros(1)


def reader_memory(count: int = IMAGENET, workers: int = READERS) -> dict:
    """Proportional set size of each of `workers` processes with as many made-up names of files as ImageNet has, once
    each has looked at its share of them twice; Linux says it."""
    if not Path("/proc/self/smaps_rollup").is_file():
        return {}
    names = FileNames(f"/data/imagenet/train/n{i % 1000:08}/n{i % 1000:08}_{i}.JPEG" for i in range(count))
    dataset = Names("names", "train", names, torch.zeros(count, dtype=torch.int64), ["any"], 224)
    parts = [(slice(n, None, workers),) for n in range(workers)] * 2
    found = [float(said) for said, _ in read_batches(dataset, iter(parts), workers, torch.device("cpu"))]
    return {"paths": count, "workers": workers, "largest_mb": round(max(found[workers:]), 1)}
