"""Images and labels for every step, on the device."""

import hashlib
import os
import signal
from collections.abc import Generator, Iterable, Iterator
from multiprocessing import active_children

import torch
from accelerate import Accelerator
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info

from selfie_lite.augment import SMALL, make_crop
from selfie_lite.data.datasets import ImageDataset, ImageFiles
from selfie_lite.data.folders import PackedFiles
from selfie_lite.errors import SelfieLiteError
from selfie_lite.training.config import TrainingConfig
from selfie_lite.training.randomness import batch_indices, generator_of

SHARED_MEMORY = (
    "shared memory is too small for {workers} processes that read images: the batches wait in /dev/shm. Take fewer "
    "(--workers 1, or 0 for none), or give the container more (docker run --shm-size 2g)."
)


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
        if config.batch_size % (accelerator.num_processes * config.accumulate):
            raise SelfieLiteError(
                f"batch_size {config.batch_size} must divide by {accelerator.num_processes} processes × "
                f"{config.accumulate} parts (accumulate)."
            )
        device = accelerator.device
        self.resident = isinstance(dataset, ImageDataset)
        if self.resident and device.type == "cuda":
            free, _ = torch.cuda.mem_get_info(device)
            self.resident = dataset.images.numel() < free // 3
        if self.resident:
            self.images, self.labels = dataset.images.to(device), dataset.labels.to(device)
        self.crops_in_reading = isinstance(dataset, ImageFiles) and config.image_size > SMALL

    def indices(self, step: int) -> Tensor:
        """Where this process's images of a step lie in the data set."""
        everyone = self.keep[batch_indices(len(self.keep), self.config.batch_size, step, self.config.seed)]
        return everyone.chunk(self.accelerator.num_processes)[self.accelerator.process_index]

    def start(self, first: int) -> Generator[tuple[Tensor, Tensor], None, None]:
        """The batches of step `first` (from 0) and of all after it.

        Raises:
            SelfieLiteError: for an image that cannot be read, or a worker process that was ended from outside.
        """
        steps = range(first, self.config.steps)
        if not self.resident:
            yield from read_batches(
                self.dataset, map(self._to_read, steps), self.config.workers, self.accelerator.device
            )
            return
        for step in steps:
            chosen = self.indices(step).to(self.images.device, non_blocking=True)
            yield self.images[chosen], self.labels[chosen]

    def _to_read(self, step: int) -> tuple[Tensor, Tensor | None]:
        """The images of a step, and the random numbers that say where each is cropped, if that is done in reading."""
        chosen = self.indices(step)
        generator = generator_of(self.config.seed, "crops of files", step, self.accelerator.process_index)
        return chosen, torch.rand((len(chosen), 5), generator=generator) if self.crops_in_reading else None

    def crop(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """The training crops of a batch; those of large image files were cut out of the whole image in reading."""
        if self.crops_in_reading:
            return images
        return make_crop(self.config.image_size, self.config.padding)(images, generator=generator)


def read_batches(
    dataset: ImageDataset | ImageFiles, parts: Iterable[tuple], workers: int, device: torch.device
) -> Iterator[tuple[Tensor, Tensor]]:
    """`dataset.batch(*part)` on the device, for each of `parts` in turn; files are read in `workers` processes, some
    parts ahead.

    Raises:
        SelfieLiteError: for an image that cannot be read, or a worker process that was ended from outside.
    """
    if isinstance(dataset, ImageDataset):
        workers = 0
    for batch in _read(dataset, parts, workers, device.type == "cuda"):
        if isinstance(batch, Exception):
            raise batch
        yield tuple(x.to(device, non_blocking=True) for x in batch)


def _read(
    dataset: ImageDataset | ImageFiles, parts: Iterable[tuple], workers: int, pin: bool
) -> Iterator[tuple[Tensor, Tensor] | Exception]:
    loader = DataLoader(
        _Reader(dataset), batch_sampler=parts, num_workers=workers, collate_fn=_as_it_is, pin_memory=pin,
        worker_init_fn=_ignore_signals, generator=torch.Generator(),
    )  # fmt: skip
    others, handler = set(active_children()), signal.getsignal(signal.SIGCHLD)
    reader = iter(loader)
    if signal.getsignal(signal.SIGCHLD) is not handler:  # torch's raises in the middle of anything; a lost worker
        signal.signal(signal.SIGCHLD, handler)  # is noticed without it when a batch is asked for
    try:
        yield from reader
    except (RuntimeError, OSError, EOFError) as error:
        if "bus error" in str(error).lower() or "shared memory" in str(error).lower():
            raise SelfieLiteError(SHARED_MEMORY.format(workers=workers)) from None
        reason = str(error).splitlines()[0] if str(error) else "one of them has ended"
        raise SelfieLiteError(
            f"reading images in {workers} processes failed ({reason}). If memory has run out, take "
            "fewer: --workers 1, or 0 for none."
        ) from None
    finally:
        del reader
        for child in set(active_children()) - others:  # one that hangs in a file, deaf to SIGTERM
            child.kill()


class _Reader(Dataset):
    """Reads a batch; what goes wrong comes back as a value, as errors of worker processes carry their traceback in
    their message."""

    def __init__(self, dataset: ImageFiles | ImageDataset):
        self.dataset = dataset

    def __getitems__(self, part: tuple) -> tuple[Tensor, Tensor] | Exception:
        try:
            images, labels = self.dataset.batch(*part)
            worker = get_worker_info()
            if worker is not None:
                try:
                    images.share_memory_()  # here, where a lack of it can be told
                except RuntimeError:
                    return SelfieLiteError(SHARED_MEMORY.format(workers=worker.num_workers))
            return images, labels
        except Exception as error:
            return error


def _as_it_is(batch):
    return batch


def _ignore_signals(_: int) -> None:
    """What is sent to a whole group of processes is the first one's to answer; it ends its workers itself."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def fingerprint(dataset: ImageDataset | ImageFiles) -> dict[str, int | str]:
    """How many images there are, and a hash of their names and labels; of images in arrays, which have no names, of
    some of the pixels. Two that differ would not continue the same run."""
    digest = hashlib.sha256(repr(dataset.classes).encode("utf-8", "surrogateescape"))
    digest.update(dataset.labels.contiguous().numpy().tobytes())
    if isinstance(dataset, ImageDataset):
        digest.update(dataset.images[:: max(1, len(dataset) // 64)].contiguous().numpy().tobytes())
    elif isinstance(dataset.paths, PackedFiles):
        digest.update(dataset.paths.ends.tobytes())
    else:
        paths = list(dataset.paths)
        folder = len(os.path.commonprefix([min(paths), max(paths)]))  # it may be called another name
        for path in paths:
            digest.update(os.fsencode(path[folder:]) + b"\0")
    return {"count": len(dataset), "names": digest.hexdigest()[:16]}
