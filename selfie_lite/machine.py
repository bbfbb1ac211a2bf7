"""What a result was measured on, and how fast this machine is."""

import os
import platform
import statistics
import subprocess
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from selfie_lite.patch_network import PatchNetwork


def best_device() -> torch.device:
    """The GPU if torch sees one, else the CPU."""
    return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")


def environment(device: torch.device | None = None) -> dict:
    """Versions, device (default: the best there is) and commit, to be written beside every result."""
    device = device or best_device()
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    packages = ("torch", "torchvision", "numpy", "papermill", "jupyterlab")
    return {
        "commit": _commit(),
        "device": f"{device.type}: {name}",
        "cpu_cores": os.cpu_count(),
        "python": platform.python_version(),
        "system": platform.system(),
        "versions": {package: found for package in packages if (found := _version(package))},
    }


def speed_probe(repeats: int = 5, batch_size: int = 16) -> dict[str, float]:
    """Seconds for one forward and backward pass of the ResNet-18 P over `batch_size` images of 32×32 (16 patches each),
    the median of `repeats` after one that is not counted, on the CPU and, where there is one, on the GPU."""
    seconds = {}
    for device in dict.fromkeys(["cpu", best_device().type]):
        network = PatchNetwork("resnet18", "small").to(device, memory_format=torch.channels_last)
        patches = torch.randn(batch_size, 16, 3, 8, 8, device=device)
        times = []
        for _ in range(repeats + 1):
            start = time.perf_counter()
            network(patches).sum().backward()
            if device != "cpu":
                torch.accelerator.synchronize()
            times.append(time.perf_counter() - start)
        seconds[device] = statistics.median(times[1:])
    return seconds


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:  # of an extra that is not installed
        return None


def _commit() -> str:
    def git(*words: str) -> str:
        done = subprocess.run(
            ["git", *words], cwd=Path(__file__).parent, capture_output=True, text=True, check=True, errors="replace"
        )
        return done.stdout.strip()

    try:
        changed = git("status", "--porcelain", "--", "*.py")
        return git("rev-parse", "--short=12", "HEAD") + ("+changes" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
