"""Other ways to train P without labels, beside Selfie in the ladder: the same network, images, steps, optimiser and
loop, and as many images through P."""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selfie_lite.augment import normalize
from selfie_lite.data.datasets import load_dataset
from selfie_lite.errors import SelfieLiteError
from selfie_lite.patch_network import PatchNetwork
from selfie_lite.training.batches import Batches
from selfie_lite.training.device import make_accelerator
from selfie_lite.training.loop import train
from selfie_lite.training.pretrain import PretrainConfig, split_held_out
from selfie_lite.training.randomness import generator_of, seed_of
from selfie_lite.training.run import Task


class Rotation(nn.Module):
    """By which of four quarter turns was the image turned? (Gidaris et al. 2018, arXiv 1803.07728)"""

    views = 1  # of an image, each of which passes through P

    def __init__(self, arch: str):
        super().__init__()
        self.patch_network = PatchNetwork(arch, "small")
        self.head = nn.Linear(self.patch_network.dim, 4)

    def forward(self, images: Tensor, turns: Tensor) -> dict[str, Tensor]:
        """images: (B, 3, H, H) uint8; turns: (B,) int64 from 0 to 3. Gives loss and accuracy."""
        four = torch.stack([torch.rot90(images, k, (2, 3)) for k in range(4)])  # (4, B, 3, H, H)
        turned = four[turns, torch.arange(len(images))]
        logits = self.head(self.patch_network.feature_maps(normalize(turned)).mean(dim=(2, 3)))
        return {"loss": F.cross_entropy(logits, turns), "accuracy": (logits.argmax(dim=1) == turns).float().mean()}


class SimCLR(nn.Module):
    """Which other view is of the same image? (Chen et al. 2020, arXiv 2002.05709; lightly's transforms, projection head
    and loss, with its settings for small images: no blur, temperature 0.5)"""

    views = 2

    def __init__(self, arch: str):
        super().__init__()
        try:
            from lightly.loss import NTXentLoss
            from lightly.models.modules import SimCLRProjectionHead
            from lightly.transforms import SimCLRTransform
        except ImportError:
            raise SelfieLiteError("SimCLR comes from lightly: pip install lightly.") from None
        self.patch_network = PatchNetwork(arch, "small")
        dim = self.patch_network.dim
        self.head = SimCLRProjectionHead(dim, dim, 128)
        self.two_views, self.loss = SimCLRTransform(input_size=32, gaussian_blur=0.0), NTXentLoss(0.5)

    def forward(self, images: Tensor, turns: Tensor) -> dict[str, Tensor]:
        """images: (B, 3, H, H) uint8; the transforms draw from torch's global generator. Gives the loss."""
        first, second = zip(*(self.two_views(image) for image in images.cpu()), strict=True)
        views = torch.stack([*first, *second]).to(images.device)
        one, two = self.head(self.patch_network.feature_maps(views).mean(dim=(2, 3))).chunk(2)
        return {"loss": self.loss(one, two)}


BASELINES: dict[str, type[Rotation] | type[SimCLR]] = {"rotation": Rotation, "SimCLR": SimCLR}


def pretrain_baseline(name: str, config: PretrainConfig) -> Path:
    """Pretrain as `pretrain` does, with another task; gives the run's folder, whose P `load_patch_network` reads. Of
    `config`, what is Selfie's own (queries, masks) is not used; a method with two views gets half as many images.

    Raises:
        SelfieLiteError: as `pretrain`.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of(config.seed, "first weights"))
        model = BASELINES[name](config.arch)
    config = config.updated(batch_size=config.batch_size // model.views)
    accelerator = make_accelerator(config)
    dataset = load_dataset(config.data, "train", config.image_size)
    keep, aside = split_held_out(len(dataset), config.held_out)
    batches = Batches(dataset, keep, config, accelerator)

    def draw(images, labels, generator):
        return batches.crop(images, generator), draw_turns(images, generator)

    def draw_turns(images, generator):
        return torch.randint(4, (len(images),), generator=generator).to(images.device)

    @torch.no_grad()
    def evaluate(model):
        model.eval()
        with torch.random.fork_rng(devices=[]), accelerator.autocast():
            torch.manual_seed(seed_of("evaluation views"))
            images = dataset.batch(aside)[0].to(accelerator.device)
            found = model(images, draw_turns(images, generator_of("evaluation turns")))
        model.train()
        return {f"held_out_{key}": value.item() for key, value in found.items()}

    task = Task(draw, forward=lambda model, *drawn: model(*drawn), evaluate=evaluate)
    train(config, task, accelerator, model, batches)
    return config.folder
