"""The loss of all hidden locations at once, against one location at a time."""

import math

import pytest
import torch

from selfie_lite import (
    PatchGrid,
    Selfie,
    SelfieLiteError,
    masked_patch_logits,
    multi_location_loss,
    one_location_loss,
    patchify,
    sample_masks,
)
from selfie_lite.loss import diagonal_targets
from selfie_lite.selfie import take


def random_vectors(batch=3, masked=4, dim=8):
    generator = torch.Generator().manual_seed(0)
    queries = torch.randn(batch, masked, dim, dtype=torch.float64, generator=generator)
    return queries, torch.randn(batch, masked, dim, dtype=torch.float64, generator=generator)


def test_logits_by_loops():
    queries, features = random_vectors()
    logits = masked_patch_logits(queries, features)
    assert logits.shape == (3, 4, 4)
    for b in range(3):
        for i in range(4):
            for k in range(4):
                dot = sum(queries[b, i, d].item() * features[b, k, d].item() for d in range(8))
                assert logits[b, i, k].item() == pytest.approx(dot, rel=1e-12)


def test_loss_by_loops():
    queries, features = random_vectors()
    total = 0.0
    for b in range(3):
        for i in range(4):
            fits = [sum((queries[b, i] * features[b, k]).tolist()) for k in range(4)]
            total -= math.log(math.exp(fits[i]) / sum(math.exp(fit) for fit in fits))
    assert multi_location_loss(queries, features).item() == pytest.approx(total / 12, rel=1e-12)
    one = [one_location_loss(queries[:, i], features, i).item() for i in range(4)]
    assert sum(one) / 4 == pytest.approx(total / 12, rel=1e-12)


@pytest.mark.parametrize("masked", [1, 4, 12])
def test_guessing_gives_ln_m(masked):
    queries, features = random_vectors(masked=masked)
    assert multi_location_loss(queries * 0, features).item() == pytest.approx(math.log(masked))


def test_right_answers_cost_nothing():
    features = torch.eye(4).expand(2, 4, 4) * 50
    assert multi_location_loss(features, features).item() == pytest.approx(0, abs=1e-6)
    assert multi_location_loss(features.roll(1, dims=1), features).item() > 100


def test_targets_are_the_diagonal():
    assert diagonal_targets(torch.zeros(2, 3, 3)).tolist() == [0, 1, 2, 0, 1, 2]


@pytest.mark.parametrize("queries, features", [((2, 4, 8), (2, 3, 8)), ((2, 4, 8), (2, 4, 7)), ((4, 8), (4, 8))])
def test_shapes_that_differ(queries, features):
    with pytest.raises(SelfieLiteError, match="must have one shape .batch, masked, dim."):
        multi_location_loss(torch.zeros(queries), torch.zeros(features))


@pytest.mark.parametrize("queries", ["additive", "mask_token"])
@pytest.mark.parametrize("grid", [PatchGrid(32, 8), PatchGrid(224, 32)], ids=["32/8", "224/32"])
def test_all_locations_at_once_equal_one_at_a_time(grid, queries):
    """The paper's efficient implementation and the plain one: the same loss and the same gradient everywhere."""
    torch.manual_seed(0)
    model = Selfie(grid, arch="resnet18", num_masked=4, queries=queries).double()
    images = torch.randn(2, 3, grid.image_size, grid.image_size, dtype=torch.float64)
    settle(model, images)
    visible, masked = sample_masks(2, grid, model.num_masked)

    efficient = model(images, visible, masked)
    gradients = torch.autograd.grad(efficient.loss, list(model.parameters()))

    patches = patchify(images, grid)
    losses = []
    for j in range(model.num_masked):  # P and the Transformer run anew for each location
        features = model.patch_network(patches)
        v, _ = model.make_queries(features, visible, masked[:, j : j + 1])
        losses.append(one_location_loss(v[:, 0], take(features, masked), j))
    plain = torch.stack(losses).mean()
    plain_gradients = torch.autograd.grad(plain, list(model.parameters()))

    torch.testing.assert_close(efficient.loss, plain, rtol=1e-9, atol=0)
    library = multi_location_loss(efficient.queries, take(features, masked))
    torch.testing.assert_close(library, plain, rtol=1e-9, atol=0)
    for (name, _), a, b in zip(model.named_parameters(), gradients, plain_gradients, strict=True):
        assert a.any(), name
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11 * a.abs().max().item(), msg=name)


def settle(model, images):
    """One pass in training mode sets the batch statistics; then evaluation mode, without dropout."""
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0
    model.train()
    with torch.no_grad():
        model(images)
    model.eval()
