"""What is timed: a training step as `pretrain` makes it, on the bundled images; its operations, its memory."""

import multiprocessing
import resource
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.data import DataLoader, Dataset
from torch.utils.flop_counter import FlopCounterMode
from torchvision.transforms import v2

from selfie_lite.augment import MEAN, STD
from selfie_lite.data.datasets import ImageDataset, load_dataset
from selfie_lite.patches import sample_masks
from selfie_lite.training.batches import Batches
from selfie_lite.training.device import compiles, make_accelerator, prepare_model
from selfie_lite.training.loop import train_step
from selfie_lite.training.optimizer import make_optimizer
from selfie_lite.training.pretrain import PretrainConfig, forward, make_draw, make_model
from selfie_lite.training.run import Task


class Step:
    """A training step of `config` that can be called again and again, as `pretrain` makes it.

    plain_input: images come from one loader process through PIL transforms, as float32, instead of lying on the
    device as uint8.
    """

    def __init__(self, config: PretrainConfig, fused: bool | None = None, plain_input: bool = False):
        self.config = config
        self.accelerator = make_accelerator(config)
        selfie = make_model(config)
        model = prepare_model(selfie, config, self.accelerator)
        self.model, self.optimizer = self.accelerator.prepare(model, make_optimizer(model, config, fused))
        if compiles(config, self.accelerator.device):
            self.model.compile()
        dataset = bundled_images(config)
        if plain_input:
            self.batches = plain_batches(dataset, config, self.accelerator.device)
            draw: Callable = partial(_draw_for_floats, config, selfie.num_masked)
        else:
            batches = Batches(dataset, torch.arange(len(dataset)), config, self.accelerator)
            self.batches, draw = batches.start(0), make_draw(config, selfie.num_masked, batches.crop)
        self.task = Task(draw, forward)

    def __call__(self) -> None:
        images, labels = next(self.batches)
        train_step(self.config, self.task, self.accelerator, self.model, self.optimizer, images, labels, 0)


def _draw_for_floats(config, num_masked, images, labels, generator):
    """As `make_draw`'s, for images that the loader has cropped and normalised already."""
    return images, *sample_masks(len(images), config.grid, num_masked, generator, images.device)


def bundled_images(config: PretrainConfig) -> ImageDataset:
    """Enough uint8 images of the size asked for: the sample up to 64 pixels, else the photos, over and over."""
    source = load_dataset("sample" if config.image_size <= 64 else "photos")
    assert isinstance(source, ImageDataset)
    pixels = source.images
    if pixels.shape[-1] != config.image_size:
        resized = torch.nn.functional.interpolate(pixels.float(), (config.image_size,) * 2, mode="bilinear")
        pixels = resized.round().to(torch.uint8)
    count = max(config.batch_size, min(4000, 2**28 // pixels[0].numel()))
    images = pixels[torch.arange(count) % len(pixels)]
    return ImageDataset("bundled", "train", images, torch.zeros(count, dtype=torch.int64), ["any"])


class PlainImages(Dataset):
    """An image at a time through torchvision's transforms on PIL images, as most training scripts do it."""

    def __init__(self, images: torch.Tensor, padding: int):
        size = images.shape[-1]
        crop = v2.RandomCrop(size, padding or None) if size <= 64 else v2.RandomResizedCrop(size)
        to_float = [v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)]
        self.images, self.transform = images, v2.Compose([crop, v2.RandomHorizontalFlip(), *to_float])

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self.transform(v2.functional.to_pil_image(self.images[index])), 0


def plain_batches(dataset: ImageDataset, config: PretrainConfig, device: Any) -> Iterator[tuple]:
    images, kept = PlainImages(dataset.images, config.padding), dict(num_workers=1, persistent_workers=True)
    loader: DataLoader = DataLoader(images, config.batch_size, shuffle=True, drop_last=True, **kept)  # type: ignore[arg-type]
    while True:
        for pixels, labels in loader:
            yield pixels.to(device), labels.to(device)


def peak_memory(rung: dict[str, Any]) -> int:
    """MB at the highest in three steps, in a process of their own: on the GPU what torch has allocated there, on the
    CPU all that the process holds, Python and libraries included."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_three_steps, rung).result()


def _three_steps(rung: dict[str, Any]) -> int:
    step = Step(**rung)
    for _ in range(3):
        step()
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() // 2**20
    status = Path("/proc/self/status")  # Linux: getrusage would count what the parent process held
    if status.is_file():
        return int(status.read_text().partition("VmHWM:")[2].split()[0]) // 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // (2**20 if sys.platform == "darwin" else 2**10)


class CountBytes(TorchDispatchMode):
    """Bytes that the operations read and write, each by itself: what moves if nothing is fused and no cache helps."""

    bytes = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        if not function.is_view and "empty" not in function.name():
            tensors = [x for x in torch.utils._pytree.tree_leaves((args, kwargs, out)) if isinstance(x, torch.Tensor)]
            self.bytes += sum(x.numel() * x.element_size() for x in tensors)
        return out


def count_operations(call: Callable[[], None]) -> tuple[int, int]:
    """Floating-point operations (two a multiply-add) and bytes of one call, run without compilation."""
    with FlopCounterMode(display=False) as flops, torch.compiler.set_stance("force_eager"):
        call()
    with CountBytes() as counted, torch.compiler.set_stance("force_eager"):
        call()
    return flops.get_total_flops(), counted.bytes
