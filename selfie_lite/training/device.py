"""Device, precision, processes, compilation."""

import torch
from accelerate import Accelerator, PartialState
from accelerate.state import AcceleratorState
from torch import nn

from selfie_lite.machine import best_device
from selfie_lite.training.config import TrainingConfig


def has_native_bf16(device: torch.device) -> bool:
    """Whether bfloat16 is fast there; on a CPU without it, it is many times slower than float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        tests = (getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
        return any(test() for test in tests if test)
    return False


def make_accelerator(config: TrainingConfig) -> Accelerator:
    """The device, the precision, and the other processes if there are any (`accelerate launch`, `torchrun`)."""
    AcceleratorState._reset_state()  # a notebook may hold an earlier run of another precision
    cpu = best_device().type == "cpu"  # unsaid, torchrun on CPUs gives processes that do not know each other
    device = PartialState(cpu=cpu).device
    bf16 = config.precision == "bf16" or config.precision == "auto" and has_native_bf16(device)
    return Accelerator(mixed_precision="bf16" if bf16 else "no", cpu=cpu)


def compiles(config: TrainingConfig, device: torch.device) -> bool:
    return config.compile == "yes" or config.compile == "auto" and device.type == "cuda"


def prepare_model(model: nn.Module, config: TrainingConfig, accelerator: Accelerator) -> nn.Module:
    if config.sync_batch_norm and accelerator.num_processes > 1:
        from selfie_lite.training.sync_batch_norm import convert_sync_batch_norm

        model = convert_sync_batch_norm(model, accelerator.device)
    memory_format = torch.channels_last if config.channels_last else torch.contiguous_format
    return model.to(accelerator.device, memory_format=memory_format)
