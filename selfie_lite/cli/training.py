"""selfie-lite pretrain | finetune | export: train, and take the weights elsewhere."""

import os
import time
from collections.abc import Callable
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any

import click
import torch

from selfie_lite.cli.base import Number, Place, Text, app, say
from selfie_lite.errors import SelfieLiteError, require_choice
from selfie_lite.files import read_json
from selfie_lite.training.config import RUNS, TrainingConfig
from selfie_lite.training.export import FORMS
from selfie_lite.training.export import export as write
from selfie_lite.training.finetune import FINETUNE_PRESETS, SCRATCH, search_learning_rate
from selfie_lite.training.finetune import finetune as run_finetuning
from selfie_lite.training.pretrain import PRESETS
from selfie_lite.training.pretrain import pretrain as run_pretraining

KINDS: dict[str, tuple[dict, Callable]] = {
    "pretrain": (PRESETS, run_pretraining),
    "finetune": (FINETUNE_PRESETS, run_finetuning),
}
VALUES = {int: Number(int), float: Number(float), str: Text(), bool: bool}


def options_of(kind: str) -> Callable:
    """--preset, --config, and one option for each setting, with its help, and its value in the preset laptop as the
    default shown."""
    presets, _ = KINDS[kind]
    config = presets["laptop"]

    def decorate(command: Callable) -> Callable:
        for f in reversed(fields(config)):
            default, flag = getattr(config, f.name), f.metadata["flag"] or "--" + f.name.replace("_", "-")
            flag = f"{flag}/--no-{flag[2:]}" if isinstance(default, bool) else flag
            text = f"{f.metadata['help']}  [default: {'none' if default == '' else default}]"
            bare: dict = {"is_flag": False, "flag_value": "newest"} if f.name == "resume" else {}  # --resume alone
            option = click.option(
                flag, f.name, type=VALUES[type(default)], default=None, help=text, show_default=False, **bare
            )  # fmt: skip
            command = option(command)
        command = click.option("--config", "file", type=Place(), help="Settings from a run's config.json.")(command)
        names = f"{', '.join(presets)}: other defaults.  [default: laptop]"
        return click.option("--preset", type=Text(presets), help=names)(command)

    return decorate


@app.command()
@options_of("pretrain")
def pretrain(preset, file, **settings):
    """Pretrain P on images without labels; everything is written to runs/NAME. The defaults shown are those of the
    preset laptop.

    Several GPUs or machines: accelerate launch -m selfie_lite pretrain …, or torchrun … -m selfie_lite pretrain …
    """
    run_in_processes(run_pretraining, choose_config("pretrain", preset, file, settings))


@app.command()
@click.option(
    "--search", "rates", type=Number(float, 1e-12, 1e3), multiple=True,
    help="Try this learning rate; repeatable. The one that is best on the validation part is kept.",
)  # fmt: skip
@options_of("finetune")
def finetune(preset, file, rates, **settings):
    """Train a classifier from P, or from scratch, on a part of the labels; everything is written to runs/NAME. The
    defaults shown are those of the preset laptop."""
    if settings["pretrained"] not in (None, SCRATCH) and not file:  # P says which network, not the preset
        settings |= {name: settings[name] or "" for name in ("arch", "stem")}
    train = partial(search_learning_rate, learning_rates=rates) if rates else run_finetuning
    run_in_processes(train, choose_config("finetune", preset, file, settings))


def choose_config(kind: str, preset: str | None, file: Path | None, settings: dict[str, Any]) -> TrainingConfig:
    """What a command line asks for: a preset, a file, or the settings of the run to resume; and what it changes."""
    presets, _ = KINDS[kind]
    if preset and file:
        raise SelfieLiteError("give --preset or --config, not both.")
    require_choice("preset", preset or "laptop", presets)
    config = presets[preset or "laptop"]
    if settings.get("resume") and not preset and not file:
        file = RUNS / (settings["name"] or config.name) / "config.json"  # the run's own settings
        if not file.is_file():
            raise SelfieLiteError(f"there is no run in {file.parent} yet. Begin it without --resume.")
    if file:
        config = type(config).from_dict(read_json(file, "the settings of a run", {}))
    return config.updated(**{name: value for name, value in settings.items() if value is not None})


def run_in_processes(train: Callable, config: TrainingConfig) -> None:
    """Train; with several processes, a mistake that all of them meet is said by the first alone."""
    try:
        train(config)
    except SelfieLiteError:
        if os.environ.get("RANK", "0") != "0":
            time.sleep(5)  # the launcher ends this process as soon as the first has left: what it says is said once
        raise
    finally:
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()  # a process that leaves without it may abort


@app.command()
@click.option("--from", "run", type=Text(), required=True, help="A run, a bundled model, or weights made elsewhere.")
@click.option("--to", "form", type=Text(FORMS), required=True, help=f"{', '.join(FORMS)}.")
@click.argument("target", type=Place())
def export(run, form, target):
    """Write the newest weights of a run to TARGET.

    torchvision: a .safetensors file, the state dict of torchvision's and timm's ResNet. hub: a folder for
    PatchNetwork.from_pretrained. bundle: a folder for load_pretrained, float16, with settings, metrics and SHA-256.
    """
    lines = write(run, form, target)
    file = target if target.is_file() else target / "model.safetensors"
    say(f"{target}: {file.stat().st_size / 1e6:.1f} MB. Use:\n{lines}")
