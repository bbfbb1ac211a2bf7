"""Device, precision, processes, compilation."""

import os
import shutil

import torch
from accelerate import Accelerator
from accelerate.utils import GradientAccumulationPlugin, gather_object
from torch import nn

from selfie_lite.errors import SelfieLiteError
from selfie_lite.machine import best_device
from selfie_lite.training.config import TrainingConfig

LAUNCHED = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")  # all of them are set by torchrun
MPI_SIZES = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE")


class PlainAccelerator(Accelerator):
    """accelerate's Accelerator, which takes nothing from its own settings and variables: what a run does stands in its
    configuration. Precision is torch's autocast here, as that of an Accelerator holds for a whole process."""

    def __init__(self, cpu: bool, bf16: bool):
        plugin = GradientAccumulationPlugin(num_steps=1)
        super().__init__(cpu=cpu, mixed_precision="no", gradient_accumulation_plugin=plugin, dynamo_backend="no")
        self.bf16 = bf16
        self._cpu_group = None

    @property
    def mixed_precision(self) -> str:
        return "bf16" if self.bf16 else "no"

    def autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16)

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


def has_native_bf16(device: torch.device) -> bool:
    """Whether bfloat16 is fast there; on a CPU without it, it is many times slower than float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        tests = (getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
        return any(test() for test in tests if test)
    return False


def make_accelerator(config: TrainingConfig) -> PlainAccelerator:
    """The device, the precision, and the other processes if there are any (`accelerate launch`, `torchrun`).

    Raises:
        SelfieLiteError: if the environment asks for several processes that cannot find each other.
    """
    _settle_environment()
    device = best_device()
    bf16 = config.precision == "bf16" or config.precision == "auto" and has_native_bf16(device)
    try:  # unless cpu is said, torchrun on CPUs gives processes that do not know each other
        return PlainAccelerator(device.type == "cpu", bf16)
    except (ValueError, RuntimeError) as error:
        if "WORLD_SIZE" not in os.environ:
            raise
        where = ", ".join(f"{name}={os.environ[name]}" for name in LAUNCHED if name in os.environ)
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise SelfieLiteError(
            f"the processes did not find each other ({where}): {reason} Unset these variables to run alone."
        ) from None


def _settle_environment() -> None:
    """Settings that accelerate would take from variables are dropped; so is what a launcher of old left behind."""
    for name in [name for name in os.environ if name.startswith("ACCELERATE_")]:
        del os.environ[name]
    if torch.distributed.is_initialized():
        return
    numbers = {name: os.environ[name] for name in ("WORLD_SIZE", *MPI_SIZES) if os.environ.get(name)}
    launched = all(os.environ.get(name) for name in LAUNCHED)
    for name, number in numbers.items():
        several = not number.isdigit() or int(number) > 1
        if several and not launched:
            missing = ", ".join(name for name in LAUNCHED if not os.environ.get(name))
            raise SelfieLiteError(
                f"the environment asks for several processes ({name}={number}), but has not all that they need to find "
                f"each other: {missing}. Unset {name} to run alone, or start them with torchrun or accelerate launch."
            )
    if launched and numbers["WORLD_SIZE"] != "1":
        leftover = MPI_SIZES
    else:
        leftover = (*LAUNCHED, *MPI_SIZES)
    for name in leftover:
        os.environ.pop(name, None)


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


def prepare_model(model: nn.Module, config: TrainingConfig, accelerator: Accelerator) -> nn.Module:
    """`model` on the device, in the memory format and with the batch normalisation that `config` asks for."""
    if config.sync_batch_norm and accelerator.num_processes > 1:
        from selfie_lite.training.sync_batch_norm import convert_sync_batch_norm

        model = convert_sync_batch_norm(model, accelerator.device)
    memory_format = torch.channels_last if config.channels_last else torch.contiguous_format
    return model.to(accelerator.device, memory_format=memory_format)
