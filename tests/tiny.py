"""A data set and a run so small that a step takes some hundredths of a second."""

import os
from pathlib import Path

import nbformat
import numpy as np
import pytest
import torch
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from selfie_lite import cli
from selfie_lite.data.importing import dataset_writer
from selfie_lite.training.finetune import FinetuneConfig
from selfie_lite.training.pretrain import PretrainConfig


def make_data(cache: Path, count: int = 48, size: int = 16) -> None:
    """Images with a bright top and a dark bottom, so that there is something to learn: data set "tiny" in `cache`."""
    os.environ["SELFIE_LITE_DATA"] = str(cache)
    noise = torch.randint(0, 60, (count, 3, size, size), generator=torch.Generator().manual_seed(0))
    ramp = torch.linspace(190, 0, size).long()[None, None, :, None]
    with dataset_writer("tiny", size, ["one"], 0) as write:
        write("train", [((noise + ramp).to(torch.uint8).numpy(), np.zeros(count))])


def config(**changes) -> PretrainConfig:
    settings = dict(
        name="tiny", data="tiny", arch="resnet18", image_size=16, patch_size=4, steps=12, batch_size=8, seed=3,
        optimizer="adamw", learning_rate=1e-3, warmup_steps=3, held_out=8, eval_every=5, save_every=4, log_every=3,
        precision="fp32",
    )  # fmt: skip
    return PretrainConfig(**(settings | changes))


def make_labelled(cache: Path, per_class: int = 20, size: int = 16) -> None:
    """Noise in three colours, one a class: data set "colours" in `cache`, with a train and a test part."""
    os.environ["SELFIE_LITE_DATA"] = str(cache)
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(3 * per_class) % 3
    with dataset_writer("colours", size, ["red", "green", "blue"], 0) as write:
        for split in ("train", "test"):
            images = torch.randint(0, 100, (len(labels), 3, size, size), generator=generator)
            images[torch.arange(len(labels)), labels] += 100
            write(split, [(images.to(torch.uint8).numpy(), labels.numpy())])


def finetune_config(**changes) -> FinetuneConfig:
    settings = dict(
        name="fine", data="colours", arch="resnet18", image_size=16, steps=6, batch_size=8, seed=3, optimizer="adamw",
        learning_rate=1e-3, warmup_steps=2, eval_every=2, save_every=2, log_every=2, precision="fp32", padding=2,
    )  # fmt: skip
    return FinetuneConfig(**(settings | changes))


def write_notebook(path, *code, parameters="steps: int = 3  # training steps"):
    cells = [new_markdown_cell(f"# {path.stem}\n\n**Question.** why {path.stem}?\n\nNext: [b](02_b.ipynb)")]
    cells.append(new_code_cell(parameters, metadata={"tags": ["parameters"]}))
    kernel = {"kernelspec": {"name": "python3", "language": "python", "display_name": "Python 3"}}
    nbformat.write(new_notebook(cells=cells + [new_code_cell(source) for source in code], metadata=kernel), path)


def run_command(monkeypatch, *words) -> int:
    """Run `selfie-lite WORDS` in this process; gives its exit code."""
    monkeypatch.setattr("sys.argv", ["selfie-lite", *words])
    with pytest.raises(SystemExit) as ended:
        cli.main()
        raise SystemExit(0)  # a command that just returns
    return ended.value.code
