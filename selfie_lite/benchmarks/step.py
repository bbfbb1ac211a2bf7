"""What is timed: a training step as `pretrain` makes it, on the bundled images; its operations, its memory."""

import multiprocessing
import re
import resource
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.data import DataLoader
from torch.utils.flop_counter import FlopCounterMode
from torchvision.transforms import v2

from selfie_lite.augment import MEAN, STD, make_crop
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
        model = prepare_model(make_model(config), config, self.accelerator)
        optimizer = make_optimizer(model, config, fused)
        self.model, self.optimizer = self.accelerator.prepare(model, optimizer)
        if compiles(config, self.accelerator.device):
            self.model.compile()
        dataset = bundled_images(config)
        if plain_input:
            self.batches = plain_batches(dataset, config, self.accelerator.device)
            draw = partial(_draw_for_floats, config, model.num_masked)
        else:
            self.batches = Batches(dataset, torch.arange(len(dataset)), config, self.accelerator).start(0)
            draw = make_draw(config, model.num_masked, make_crop(config.image_size, config.padding))
        self.task = Task(draw, forward)
        self.count = 0

    def __call__(self) -> None:
        images, labels = next(self.batches)
        train_step(self.config, self.task, self.accelerator, self.model, self.optimizer, images, labels, 0)


def _draw_for_floats(config, num_masked, images, labels, generator):
    """As `make_draw`'s, for images that the loader has cropped and normalised already."""
    return images, *sample_masks(len(images), config.grid, num_masked, generator, images.device)


def bundled_images(config: PretrainConfig) -> ImageDataset:
    """Enough uint8 images of the size asked for: the sample up to 64 pixels, else the photos, over and over."""
    source = load_dataset("sample" if config.image_size <= 64 else "photos").images
    if source.shape[-1] != config.image_size:
        resized = torch.nn.functional.interpolate(source.float(), (config.image_size,) * 2, mode="bilinear")
        source = resized.round().to(torch.uint8)
    count = max(config.batch_size, min(4000, 2**28 // source[0].numel()))
    images = source[torch.arange(count) % len(source)]
    return ImageDataset("bundled", "train", images, torch.zeros(count, dtype=torch.int64), ["any"])


class PlainImages(torch.utils.data.Dataset):
    """An image at a time through torchvision's transforms on PIL images, as most training scripts do it."""

    def __init__(self, images: torch.Tensor, padding: int):
        size = images.shape[-1]
        crop = v2.RandomCrop(size, padding or None) if size <= 64 else v2.RandomResizedCrop(size)
        to_float = [v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)]
        self.images, self.transform = images, v2.Compose([crop, v2.RandomHorizontalFlip(), *to_float])

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int):
        return self.transform(v2.functional.to_pil_image(self.images[index])), 0


def plain_batches(dataset: ImageDataset, config: PretrainConfig, device) -> Iterator[tuple]:
    loader = DataLoader(
        PlainImages(dataset.images, config.padding), config.batch_size, shuffle=True, num_workers=1, drop_last=True,
        persistent_workers=True,
    )  # fmt: skip
    while True:
        for images, labels in loader:
            yield images.to(device), labels.to(device)


def peak_memory(rung: dict) -> int:
    """MB at the highest in three steps, in a process of their own: on the GPU what torch has allocated there, on the
    CPU all that the process holds, Python and libraries included."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_three_steps, rung).result()


def _three_steps(rung: dict) -> int:
    step = Step(**rung)
    for _ in range(3):
        step()
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() // 2**20
    status = Path("/proc/self/status")  # Linux: getrusage would count what the parent process held
    if status.is_file():
        return int(re.search(r"VmHWM:\s*(\d+) kB", status.read_text())[1]) // 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // (2**20 if sys.platform == "darwin" else 2**10)


class CountBytes(TorchDispatchMode):
    """Bytes that the operations read and write, each by itself: what moves if nothing is fused and no cache helps."""

    def __init__(self):
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        if not function.is_view and "empty" not in function.name():
            for x in torch.utils._pytree.tree_leaves((args, kwargs, out)):
                if isinstance(x, torch.Tensor):
                    self.bytes += x.numel() * x.element_size()
        return out


def count_operations(call: Callable) -> tuple[int, int]:
    """Floating-point operations (two a multiply-add) and bytes of one call, run without compilation."""
    with FlopCounterMode(display=False) as flops, torch.compiler.set_stance("force_eager"):
        call()
    with CountBytes() as counted, torch.compiler.set_stance("force_eager"):
        call()
    return flops.get_total_flops(), counted.bytes
