"""How large a reproduction is: at full size, or the same plan in little."""

from dataclasses import dataclass

from selfie_lite.benchmarks.ladder import ARMS
from selfie_lite.training.finetune import FINETUNE_PRESETS, FinetuneConfig
from selfie_lite.training.pretrain import PRESETS, PretrainConfig


@dataclass(frozen=True)
class Scale:
    """How large everything is. Parts that pretrain: cifar10, ladder and imagenette."""

    pretrain: dict[str, PretrainConfig]  # by part
    finetune: dict[str, FinetuneConfig]
    timed: dict[str, PretrainConfig]  # by pixels
    bench: tuple[str, ...]
    batches: tuple[int, ...]  # tried when measuring
    rates: tuple[float, ...]  # learning rates of pretraining
    fine_rates: tuple[float, ...]
    arms: dict[str, tuple[str, ...]]
    seeds: dict[str, int]
    labels: dict[str, tuple[float, ...]]  # in order of worth
    least: int = 200  # steps of any run
    most: int = 40_000
    images: int = 2000  # for probes and puzzles
    rounds: int = 3
    seconds: float = 3.0  # a batch size is tried for so long


def full() -> Scale:
    small, large = PRESETS["cifar10"], PRESETS["imagenette"]
    return Scale(
        {"cifar10": small, "ladder": small, "imagenette": large}, FINETUNE_PRESETS, {"32": small, "224": large},
        bench=("ceiling", "ladder", "roofline", "locations", "growth", "input"), batches=(256, 512, 1024),
        rates=(0.03, 0.1, 0.3), fine_rates=(0.02, 0.05, 0.1),
        arms={"cifar10": ("additive", "location", "mask_token"), "ladder": tuple(ARMS), "imagenette": ("location",)},
        seeds={"cifar10": 3, "ladder": 3, "imagenette": 5},
        labels={"cifar10": (0.05, 0.2, 0.08, 1.0), "imagenette": (0.05,)},
    )  # fmt: skip


def tiny() -> Scale:
    """The same plan in little: ResNet-18 and the bundled sample, on two cores."""
    small, fine = PRESETS["laptop"], FINETUNE_PRESETS["laptop"]
    parts = ("cifar10", "ladder", "imagenette")
    return Scale(
        dict.fromkeys(parts, small), dict.fromkeys(parts, fine),
        {"32": small.updated(batch_size=8), "224": small.updated(batch_size=2, image_size=224, patch_size=32)},
        bench=("ceiling",), batches=(16, 32), rates=(1e-3, 3e-3), fine_rates=(1e-3, 3e-3),
        arms=dict.fromkeys(parts, ("additive", "location")), seeds=dict.fromkeys(parts, 1),
        labels=dict.fromkeys(parts, (0.05,)), least=4, most=8, images=200, rounds=2, seconds=0.3,
    )  # fmt: skip


SCALES = {"full": full, "tiny": tiny}
