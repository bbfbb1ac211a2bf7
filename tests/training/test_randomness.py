"""Which images each step takes."""

import torch
from runs import workplace  # noqa: F401
from tiny import config

from selfie_lite import load_dataset
from selfie_lite.training.batches import Batches
from selfie_lite.training.device import make_accelerator
from selfie_lite.training.pretrain import split_held_out
from selfie_lite.training.randomness import batch_indices


def test_every_epoch_is_a_permutation_and_the_held_out_images_stay_out():
    epochs = [torch.cat([batch_indices(20, 6, step, seed=1) for step in range(3 * e, 3 * e + 3)]) for e in range(3)]
    assert all(len(epoch.unique()) == 18 for epoch in epochs)
    assert not torch.equal(epochs[0], epochs[1])
    keep, aside = split_held_out(48, 8)
    assert sorted(keep.tolist() + aside.tolist()) == list(range(48)) and len(aside) == 8
    batches = Batches(load_dataset("tiny"), keep, config(), make_accelerator(config()))
    used = torch.cat([batches.indices(step) for step in range(10)])
    assert not set(used.tolist()) & set(aside.tolist())
