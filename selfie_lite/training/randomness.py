"""Nothing random carries over from step to step: masks, crops, dropout and the order of the images at step s follow
from (seed, s) alone. So a run that is stopped anywhere and continued is the same run, bit for bit, and an evaluation in
between changes nothing.
"""

import hashlib
from functools import lru_cache

import torch
from torch import Tensor


def seed_of(*parts) -> int:
    """A seed for each purpose: 56 bits of the hash of `parts`."""
    return int.from_bytes(hashlib.blake2b(repr(parts).encode(), digest_size=7).digest(), "big")


def generator_of(*parts) -> torch.Generator:
    return torch.Generator().manual_seed(seed_of(*parts))


def batch_indices(count: int, batch_size: int, step: int, seed: int) -> Tensor:
    """The images of step `step` (from 0): each epoch is a new permutation; the last partial batch is dropped."""
    epoch, number = divmod(step, count // batch_size)
    return epoch_order(count, seed, epoch)[number * batch_size : (number + 1) * batch_size]


@lru_cache(maxsize=2)
def epoch_order(count: int, seed: int, epoch: int) -> Tensor:
    return torch.randperm(count, generator=generator_of(seed, "order", epoch))
