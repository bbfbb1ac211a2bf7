"""Device, precision, processes, compilation."""

import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import GradientAccumulationPlugin, gather_object
from torch import Tensor, nn
from torch.distributed.nn.functional import all_reduce  # gradients flow through it

from selfie_lite.errors import SelfieLiteError
from selfie_lite.machine import best_device
from selfie_lite.training.config import TrainingConfig

LAUNCHED = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")  # all of them are set by torchrun
LAUNCHERS = ("TORCHELASTIC_RUN_ID", "SLURM_PROCID", "OMPI_COMM_WORLD_RANK", "PMI_RANK", "MV2_COMM_WORLD_RANK")
MPI_SIZES = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE")


class PlainAccelerator(Accelerator):
    """accelerate's Accelerator, which takes nothing from its own settings and variables: what a run does stands in its
    configuration. Device and precision are not its own, as those hold for a whole process."""

    def __init__(self, device: torch.device, precision: str):
        self._device, self.precision = device, precision
        plugin = GradientAccumulationPlugin(num_steps=1)
        cpu = device.type == "cpu" and "WORLD_SIZE" in os.environ  # else processes on CPUs do not know each other
        super().__init__(cpu=cpu, mixed_precision="no", gradient_accumulation_plugin=plugin, dynamo_backend="no")
        self.scaler = torch.amp.GradScaler(device.type) if precision == "fp16" else None
        self._cpu_group: Any = None
        if self.num_processes > 1:
            self._device = self.state.device

    @property
    def device(self) -> torch.device:
        return self._device

    @property
    def mixed_precision(self) -> str:
        return "no" if self.precision == "fp32" else self.precision

    def autocast(self) -> torch.autocast:
        dtype = torch.float16 if self.precision == "fp16" else torch.bfloat16
        return torch.autocast(self.device.type, dtype, enabled=self.precision != "fp32")

    def maximum(self, number: int) -> int:
        """The largest `number` of all processes. It goes from CPU to CPU: no GPU is waited for."""
        if self.num_processes == 1:
            return number
        if self._cpu_group is None:
            self._cpu_group = torch.distributed.new_group(backend="gloo")
        result = torch.tensor(number)
        torch.distributed.all_reduce(result, torch.distributed.ReduceOp.MAX, group=self._cpu_group)
        return int(result)

    def raise_together(self, error: Exception | None) -> None:
        """Every process calls this; if one of them has met an error, all raise, so that none waits for it."""
        if self.num_processes > 1 and self.maximum(error is not None):
            met = [text for text in gather_object([error and str(error)]) if text]
            error = error or SelfieLiteError(met[0])
        if error is not None:
            raise error

    @contextmanager
    def together(self) -> Iterator[None]:
        """Every process runs the block; a mistake that one of them meets there is raised by all."""
        error = None
        try:
            yield
        except SelfieLiteError as met:
            error = met
        self.raise_together(error)


def has_native_bf16(device: torch.device) -> bool:
    """Whether bfloat16 is fast there; on a CPU without it, it is many times slower than float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        tests = (getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
        return any(test() for test in tests if test)
    return False


def choose_device(name: str) -> torch.device:
    """The device of that name, or the best one for "auto". Raises SelfieLiteError if it is not there."""
    best = best_device()
    if name == "auto":
        return best
    there = ["cpu"] + [best.type] * (best.type != "cpu")
    there += [f"{best.type}:{number}" for number in range(torch.accelerator.device_count())]
    if name not in there:
        raise SelfieLiteError(f"there is no device '{name}' here. Choose from: auto, {', '.join(there)}.")
    device = torch.device(name)
    if device.index is not None:
        torch.accelerator.set_device_index(device.index)
    return device


def choose_precision(name: str, device: torch.device) -> str:
    """ "bf16", "fp16" or "fp32" for the setting `precision`. Raises SelfieLiteError if the device has it not."""
    if name == "fp16" and device.type != "cuda":
        raise SelfieLiteError(
            f"precision fp16 needs a CUDA GPU, but the device is {device.type}: say bf16, fp32 or auto."
        )
    if name != "auto":
        return name
    return "bf16" if has_native_bf16(device) else "fp16" if device.type == "cuda" else "fp32"


def make_accelerator(config: TrainingConfig) -> PlainAccelerator:
    """The device, the precision, and the other processes if there are any (`accelerate launch`, `torchrun`).

    Raises:
        SelfieLiteError: for a device or a precision that is not there; if the environment asks for several processes
            that cannot find each other.
    """
    _settle_environment()
    if "WORLD_SIZE" in os.environ and ":" in config.device:
        raise SelfieLiteError(f"several processes take a device each, so {config.device} cannot be had: say cuda.")
    device = choose_device(config.device)
    try:
        return PlainAccelerator(device, choose_precision(config.precision, device))
    except (ValueError, RuntimeError) as error:
        if "WORLD_SIZE" not in os.environ or isinstance(error, SelfieLiteError):
            raise
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise _lonely(reason) from None


def _settle_environment() -> None:
    """Settings that accelerate would take from variables are dropped; so is what a launcher of old left behind."""
    for name in [name for name in os.environ if name.startswith("ACCELERATE_")]:
        del os.environ[name]
    if torch.distributed.is_initialized():
        return
    sizes = {name: os.environ[name] for name in ("WORLD_SIZE", *MPI_SIZES) if os.environ.get(name)}
    missing = [name for name in LAUNCHED if not os.environ.get(name)]
    for name, size in sizes.items():
        if missing and (not size.isdigit() or int(size) > 1):
            raise SelfieLiteError(
                f"the environment asks for several processes ({name}={size}), but has not all that they need to find "
                f"each other: {', '.join(missing)}. Unset {name} to run alone, or start them with torchrun or "
                "accelerate launch."
            )
    alone = missing or sizes["WORLD_SIZE"] == "1"
    if not alone:
        _require_launcher()
    for name in (*MPI_SIZES, *(LAUNCHED if alone else ())):
        os.environ.pop(name, None)


def _require_launcher() -> None:
    """Raise SelfieLiteError, at once, if the variables of a launcher are there, but no launcher."""
    if not any(name in os.environ for name in LAUNCHERS):
        raise _lonely("no launcher has set these variables, so they may be left from another run.")
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
        try:
            socket.create_connection((os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])), timeout=20).close()
        except (OSError, ValueError) as error:
            raise _lonely(f"the launcher does not answer ({error}).") from None


def _lonely(reason: str) -> SelfieLiteError:
    where = ", ".join(f"{name}={os.environ[name]}" for name in LAUNCHED if name in os.environ)
    return SelfieLiteError(
        f"the processes did not find each other ({where}): {reason} Unset these variables to run alone, or start them "
        "with torchrun or accelerate launch."
    )


def compiles(config: TrainingConfig, device: torch.device) -> bool:
    """Whether the model is to be compiled: as `config` says, or, left to us, on a GPU if it can be done there.

    Raises:
        SelfieLiteError: if it was asked for, and something that it needs is missing.
    """
    if config.compile == "no" or config.compile == "auto" and device.type != "cuda":
        return False
    if missing := what_compiling_lacks(device):
        if config.compile == "yes":
            raise SelfieLiteError(f"torch.compile cannot work here: {missing} Or say --compile no.")
        print(f"The model is not compiled, which makes training slower: {missing}")
    return not missing


def what_compiling_lacks(device: torch.device) -> str:
    """Why torch.compile does not work on this machine, and what to do; "" if it does."""
    variable, names = ("CC", ["gcc", "clang", "cc"]) if device.type == "cuda" else ("CXX", ["g++", "clang++"])
    wanted = [os.environ[variable]] if os.environ.get(variable) else names
    if not any(shutil.which(name.split()[0]) for name in wanted):
        return f"there is no compiler ({' or '.join(wanted)}). Install {names[0]}, or set {variable} to one."
    try:
        torch.compile(lambda x: x + 1)(torch.zeros(1, device=device))
    except Exception as error:  # whatever is missing, torch has many ways to say so
        said = [line for line in str(error).splitlines() if line.strip()]
        return f"a first try failed ({said[0] if said else type(error).__name__})."
    return ""


def prepare_model(model: nn.Module, config: TrainingConfig, accelerator: PlainAccelerator) -> nn.Module:
    """`model` on the device, in the memory format and with the batch normalisation that `config` asks for; parameters
    and their names stay."""
    if config.sync_batch_norm and accelerator.num_processes > 1:
        if accelerator.device.type != "cpu":
            model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
        for module in model.modules():
            if type(module) is nn.BatchNorm2d:
                module.__class__ = CpuSyncBatchNorm2d
    memory_format = torch.channels_last if config.channels_last else torch.contiguous_format
    return model.to(accelerator.device).to(memory_format=memory_format)


class CpuSyncBatchNorm2d(nn.BatchNorm2d):
    """`nn.BatchNorm2d` whose mean and variance in training are those of all processes' inputs together.

    Follows `nn.SyncBatchNorm`; every process must give the same number of inputs.
    """

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        sums = all_reduce(torch.cat([x.sum(dim=(0, 2, 3)), x.square().sum(dim=(0, 2, 3))]))  # (2·C,)
        count = x.numel() // x.shape[1] * torch.distributed.get_world_size()
        mean, mean_of_squares = (sums / count).chunk(2)
        variance = mean_of_squares - mean.square()
        with torch.no_grad():
            self.get_buffer("num_batches_tracked").add_(1)
            for name, now in (("running_mean", mean), ("running_var", variance * count / (count - 1))):
                self.get_buffer(name).lerp_(now.to(self.get_buffer(name).dtype), self.momentum or 0.1)
        scale = self.weight * (variance + self.eps).rsqrt()
        return x * scale[:, None, None] + (self.bias - mean * scale)[:, None, None]
