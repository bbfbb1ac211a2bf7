"""What surrounds a step: several processes, and reading image files."""

import json
import multiprocessing
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from accelerate.utils import patch_environment
from torch.utils.data import DataLoader

from selfie_lite.benchmarks.step import Step, bundled_images
from selfie_lite.benchmarks.timing import speeds, spread
from selfie_lite.data.catalog import BUNDLED
from selfie_lite.data.datasets import ImageFiles
from selfie_lite.data.importing import dataset_writer
from selfie_lite.errors import SelfieLiteError
from selfie_lite.training.pretrain import PretrainConfig


def bench_processes(config: PretrainConfig, turns: Callable) -> list[dict]:
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


def bench_input(config: PretrainConfig, turns: Callable) -> dict:
    """What reading JPEG files alone can do, by worker processes, beside what the step takes."""
    step = Step(config.updated(steps=10**9))
    paths = sorted(str(path) for path in (BUNDLED / "photos").glob("*.jpg"))
    cores = multiprocessing.cpu_count()
    candidates, counts = {"step": step}, {"step": config.batch_size}
    for workers in [n for n in (1, 2, 4, 8, 16, 32) if n <= cores]:
        name, count = f"{workers} workers", 16 * workers * config.batch_size  # all read within the time taken
        labels = torch.zeros(count, dtype=torch.int64)
        files = ImageFiles("photos", "train", (paths * count)[:count], labels, ["any"], config.image_size)
        loader = DataLoader(files, config.batch_size, num_workers=workers, persistent_workers=True)
        candidates[name], counts[name] = partial(_exhaust, loader), count
    rows = speeds(turns(candidates), counts, "step")
    enough = [name for name, row in rows.items() if name != "step" and row["times_step"]["median"] >= 1]
    return {
        "files": "the ten bundled photos, JPEG, 224×224 pixels, over and over",
        "rows": rows,
        "fewest_that_keep_up_with_the_step": enough[0] if enough else f"more than {cores} workers",
    }


def _exhaust(loader: DataLoader) -> None:
    for _ in loader:
        pass
