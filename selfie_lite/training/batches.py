"""Images and labels for every step, on the device."""

from collections.abc import Iterator

import torch
from accelerate import Accelerator
from torch import Tensor
from torch.utils.data import DataLoader

from selfie_lite.data.datasets import ImageDataset, ImageFiles
from selfie_lite.errors import SelfieLiteError
from selfie_lite.training.config import TrainingConfig
from selfie_lite.training.randomness import batch_indices


class Batches:
    """uint8 images and labels on the device, step by step, from any step on.

    A data set whose images lie in memory goes to the device whole, if it fits; else worker processes read it.
    """

    def __init__(
        self, dataset: ImageDataset | ImageFiles, keep: Tensor, config: TrainingConfig, accelerator: Accelerator
    ):
        self.dataset, self.keep, self.config, self.accelerator = dataset, keep, config, accelerator
        if len(keep) < config.batch_size:
            raise SelfieLiteError(f"batch_size {config.batch_size} is more than the {len(keep)} images to train on.")
        if config.batch_size % accelerator.num_processes:
            raise SelfieLiteError(
                f"batch_size {config.batch_size} must divide by {accelerator.num_processes} processes."
            )
        device = accelerator.device
        self.resident = isinstance(dataset, ImageDataset)
        if self.resident and device.type == "cuda":
            free, _ = torch.cuda.mem_get_info(device)
            self.resident = dataset.images.numel() < free // 3
        if self.resident:
            self.images, self.labels = dataset.images.to(device), dataset.labels.to(device)

    def indices(self, step: int) -> Tensor:
        """Where this process's images of a step lie in the data set."""
        everyone = self.keep[batch_indices(len(self.keep), self.config.batch_size, step, self.config.seed)]
        return everyone.chunk(self.accelerator.num_processes)[self.accelerator.process_index]

    def start(self, first: int) -> Iterator[tuple[Tensor, Tensor]]:
        if self.resident:
            for step in range(first, self.config.steps):
                chosen = self.indices(step).to(self.images.device, non_blocking=True)
                yield self.images[chosen], self.labels[chosen]
            return
        steps = (self.indices(step).tolist() for step in range(first, self.config.steps))
        loader = DataLoader(
            self.dataset, batch_sampler=steps, num_workers=self.config.workers, generator=torch.Generator(),
            pin_memory=self.accelerator.device.type == "cuda",
        )  # fmt: skip
        for images, labels in loader:
            yield tuple(x.to(self.accelerator.device, non_blocking=True) for x in (images, labels))
