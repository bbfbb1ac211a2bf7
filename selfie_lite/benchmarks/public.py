"""A public implementation of Selfie, github.com/wuhoward/SELFIE, timed as it is: its own training loop, network and
transforms, from a folder that holds its files. Nothing of it is part of this library."""

import io
import os
import sys
import tempfile
from argparse import Namespace
from collections.abc import Callable
from contextlib import chdir, redirect_stdout
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from selfie_lite.benchmarks.step import Step, bundled_images
from selfie_lite.benchmarks.timing import in_turns, speeds
from selfie_lite.errors import SelfieLiteError
from selfie_lite.training.pretrain import PretrainConfig

GOAL = 10  # times its images/s


class PilImages(Dataset):
    """uint8 images (N, 3, H, W) as PIL images through a transform, as torchvision's CIFAR-10 gives them."""

    def __init__(self, images: torch.Tensor, transform: Callable):
        self.images, self.transform = images, transform

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        return self.transform(transforms.functional.to_pil_image(self.images[index])), 0


def public_epoch(folder: Path, images: torch.Tensor, batch_size: int) -> Callable[[], None]:
    """A call that trains its network for one epoch over `images`, which lie in memory. One worker process makes the
    crops, as there; it is kept from call to call.

    Raises:
        SelfieLiteError: if its files are not in `folder`.
    """
    missing = [name for name in ("train_selfie.py", "preact_resnet.py") if not (folder / name).is_file()]
    if missing:
        raise SelfieLiteError(
            f"{folder} has no {' and no '.join(missing)}: give the folder of wuhoward/SELFIE's files."
        )
    sys.path.insert(0, str(folder.resolve()))
    os.environ.setdefault("MPLBACKEND", "agg")
    try:
        theirs: Any = import_module("train_selfie")
        resnet: Any = import_module("preact_resnet")
    finally:
        sys.path.pop(0)
    model = resnet.PreActResNet50()
    model.layer4, model.linear = torch.nn.Identity(), torch.nn.Identity()
    model, encoder = model.to(theirs.device), theirs.Encoder(theirs.FEATURE_SIZE, 3, 16).to(theirs.device)
    settings = Namespace(
        lr=0.4, batch_size=batch_size, warm_up=1000, total_epoch=1, val_cycle=2, resume=None, all_patch=False
    )
    parameters = [*model.parameters(), *encoder.parameters()]
    optimizer = torch.optim.SGD(parameters, settings.lr, 0.9, weight_decay=1e-4, nesterov=True)
    crop = [transforms.RandomHorizontalFlip(), transforms.RandomCrop(32, padding=4)]
    transform = transforms.Compose([*crop, transforms.ToTensor(), transforms.Normalize(theirs.MEAN, theirs.STD)])
    loader = DataLoader(PilImages(images, transform), batch_size, shuffle=True, num_workers=1, persistent_workers=True)

    def epoch() -> None:
        with tempfile.TemporaryDirectory() as place, chdir(place), redirect_stdout(io.StringIO()):  # it writes files
            theirs.train_model(model, encoder, optimizer, {"train": loader}, settings)

    return epoch


def against_public(folder: Path, config: PretrainConfig, rounds: int, seconds: float) -> dict:
    """Images/s of its training loop and of our step, timed in turns, with `config`'s batch size at 32×32."""
    images = bundled_images(config).images
    step = Step(config.updated(steps=10**9))
    candidates: dict[str, Callable[[], None]] = {
        "public": public_epoch(folder, images, config.batch_size),
        "ours": step,
    }
    times = in_turns(candidates, rounds, seconds, lambda text: None)
    rows = speeds(times, {"public": len(images), "ours": config.batch_size}, "public")
    return {"rows": rows, "goal": GOAL, "config": config.to_dict()}
