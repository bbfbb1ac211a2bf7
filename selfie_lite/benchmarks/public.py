"""A public implementation of Selfie, github.com/wuhoward/SELFIE, timed as it is: its own training loop and network, in
a folder that holds its files. Nothing of it is part of this library."""

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
from torch.utils.data import DataLoader

from selfie_lite.benchmarks.step import PlainImages, Step, bundled_images
from selfie_lite.benchmarks.timing import in_turns, speeds
from selfie_lite.errors import SelfieLiteError
from selfie_lite.training.pretrain import PretrainConfig

GOAL = 10  # times its images/s


def against_public(folder: Path, config: PretrainConfig, rounds: int, seconds: float) -> dict[str, Any]:
    """Images/s of its training loop and of our step, timed in turns, at `config`'s batch size, which is for 32×32.

    Raises:
        SelfieLiteError: if its files are not in `folder`.
    """
    images = bundled_images(config).images
    public, ours = public_epoch(folder, images, config.batch_size), Step(config.updated(steps=10**9))
    times = in_turns({"public": public, "ours": ours}, rounds, seconds, lambda text: None)
    rows = speeds(times, {"public": len(images), "ours": config.batch_size}, "public")
    return {"rows": rows, "goal": GOAL, "config": config.to_dict()}


def public_epoch(folder: Path, images: torch.Tensor, batch_size: int) -> Callable[[], None]:
    """A call that trains its network for one epoch over `images`, uint8 (N, 3, 32, 32), which lie in memory. One worker
    process makes the crops, as there; it is kept from call to call."""
    missing = [name for name in ("train_selfie.py", "preact_resnet.py") if not (folder / name).is_file()]
    if missing:
        raise SelfieLiteError(f"{folder} has no {' and no '.join(missing)}: give the folder of wuhoward/SELFIE.")
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
    settings = Namespace(lr=0.4, batch_size=batch_size, warm_up=1000, total_epoch=1, val_cycle=2)
    settings.resume, settings.all_patch = None, False
    parameters = [*model.parameters(), *encoder.parameters()]
    optimizer = torch.optim.SGD(parameters, settings.lr, 0.9, weight_decay=1e-4, nesterov=True)
    crops = PlainImages(images, 4)
    loader: DataLoader = DataLoader(crops, batch_size, shuffle=True, num_workers=1, persistent_workers=True)

    def epoch() -> None:
        with tempfile.TemporaryDirectory() as place, chdir(place), redirect_stdout(io.StringIO()):  # it writes files
            theirs.train_model(model, encoder, optimizer, {"train": loader}, settings)

    return epoch
