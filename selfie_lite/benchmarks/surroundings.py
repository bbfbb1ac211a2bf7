"""What surrounds a step: several processes."""

import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import patch_environment

from selfie_lite.benchmarks.step import bundled_images
from selfie_lite.benchmarks.timing import spread
from selfie_lite.data.importing import dataset_writer
from selfie_lite.errors import SelfieLiteError
from selfie_lite.training.pretrain import PretrainConfig


def bench_processes(config: PretrainConfig, turns: Any) -> list[dict[str, Any]]:
    """`torchrun … pretrain` with 1, 2, … processes sharing the batch: one a GPU, or on the CPU the cores shared out."""
    rounds, say = turns.keywords["rounds"], turns.keywords["say"]
    most = torch.cuda.device_count() or torch.get_num_threads()
    counts = [n for n in (1, 2, 4, 8) if n <= most and config.batch_size % n == 0]
    speed: dict[int, list[float]] = {n: [] for n in counts}
    with tempfile.TemporaryDirectory() as folder:
        images = bundled_images(config)
        with (
            patch_environment(SELFIE_LITE_DATA=folder),
            dataset_writer("bundled", config.image_size, ["any"], 0) as add,
        ):
            add("train", [(images.images.numpy(), images.labels.numpy())])
        for number in range(rounds):
            say(f"  round {number + 1} of {rounds}")
            for n in counts:
                speed[n].append(images_per_second_of(config, n, Path(folder)))
    return [
        {"processes": n, "images_per_second": spread(speed[n]),
         "times_one_process": spread(a / b for a, b in zip(speed[n], speed[1], strict=True))}
        for n in counts
    ]  # fmt: skip


def images_per_second_of(config: PretrainConfig, processes: int, folder: Path) -> float:
    """Median of the lines that a short run of its own logs, but for the first."""
    short = config.updated(name="short", data="bundled", steps=12, log_every=2, eval_every=0, save_every=12, held_out=1)
    with tempfile.TemporaryDirectory() as place:
        (Path(place) / "config.json").write_text(json.dumps(short.to_dict()))
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes),
                   "-m", "selfie_lite", "pretrain", "--config", "config.json"]  # fmt: skip
        threads = str(max(1, torch.get_num_threads() // processes))
        with patch_environment(SELFIE_LITE_DATA=str(folder), OMP_NUM_THREADS=threads):
            done = subprocess.run(command, cwd=place, capture_output=True, text=True)
        if done.returncode:
            raise SelfieLiteError(f"{processes} processes did not run: {done.stderr.strip()[-500:]}")
        lines = map(json.loads, (Path(place) / "runs/short/metrics.jsonl").read_text().splitlines())
        return statistics.median([line["images_per_second"] for line in lines if "images_per_second" in line][1:])
