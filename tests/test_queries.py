"""The forms of query and the other settings that an experiment changes one at a time: each against a plain loop."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from selfie_lite import PatchGrid, Selfie, SelfieLiteError, normalize, patchify, sample_masks
from selfie_lite.beliefs import look
from selfie_lite.patches import crop_patches, sample_offsets
from selfie_lite.queries import QUERIES

TINY = PatchGrid(12, 4)  # 3×3
ARMS = {
    "additive": {},
    "location": {"queries": "location"},
    "no encoder positions": {"encoder_positions": False},
    "mean": {"pooling": "mean"},
    "max": {"pooling": "max"},
    "multiplicative": {"queries": "multiplicative"},
    "mlp": {"queries": "mlp"},
    "mask token": {"queries": "mask_token"},
    "mask token, gap": {"queries": "mask_token", "gap": 1},
    "location, gap": {"queries": "location", "gap": 2},
    "two hidden": {"num_masked": 2},
    "group": {"norm": "group"},
    "untied": {"tied": False},
}
EVERY_ARM = pytest.mark.parametrize("options", ARMS.values(), ids=ARMS)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def tiny_model(**options):
    torch.manual_seed(0)
    return Selfie(TINY, arch="resnet18", **{"num_masked": 3, "num_blocks": 1, "dropout": 0.0, **options})


def random_images(batch=4):
    return torch.randint(0, 256, (batch, 3, 12, 12), generator=seeded()).to(torch.uint8)


def by_hand(model, images, visible, masked):
    """Queries and logits in evaluation, an image and a location at a time."""
    gap, e = model.gap, model.positions()
    queries, logits = [], []
    for image, see, hide in zip(normalize(images).double(), visible, masked, strict=True):

        def h(network, location, image=image):
            row, column = divmod(int(location), 3)
            top, left = 4 * row + gap // 2, 4 * column + gap // 2
            patch = image[:, top : top + 4 - gap, left : left + 4 - gap]
            return network.feature_maps(patch[None]).mean(dim=(2, 3))[0]

        encoder = model.patch_network if model.tied else model.encoder_network
        candidates = [h(model.patch_network, location) for location in hide]
        context = [h(encoder, at) + (e[at] if model.encoder_positions else 0) for at in see]
        for at in hide:
            u = None if model.pool is None else model.pool(torch.stack(context)[None])[0]
            if u is not None and not model.has_attention:
                u = u / u.square().sum().sqrt()
            if model.query_form == "additive":
                v = u + e[at]
            elif model.query_form == "location":
                v = e[at]
            elif model.query_form == "multiplicative":
                v = torch.stack([256**0.5 * a * b for a, b in zip(u, e[at], strict=True)])
            elif model.query_form == "mlp":
                first, linear1, gelu, linear2, last = model.query_mlp
                v = last(linear2(gelu(linear1(first(u + e[at])))))
            else:
                v = model.pool.encode(torch.stack(context)[None], (model.mask_token + e[at])[None, None])[1][0, 0]
            queries.append(v)
            logits.append(torch.stack([v @ candidate for candidate in candidates]))
    return torch.stack(queries), torch.stack(logits)


@EVERY_ARM
def test_numbers_of_a_plain_loop(options):
    model, images = tiny_model(**options).double(), random_images(2)
    model(images)  # batch statistics that are not those of a fresh network
    model.eval()
    for parameter in model.positions.parameters():
        nn.init.normal_(parameter, std=0.3)
    visible, masked = sample_masks(2, TINY, model.num_masked, seeded(1))
    out = model(images, visible, masked)
    queries, logits = by_hand(model, images, visible, masked)
    torch.testing.assert_close(out.queries.flatten(0, 1), queries, rtol=1e-9, atol=1e-10)
    torch.testing.assert_close(out.logits.flatten(0, 1), logits, rtol=1e-9, atol=1e-9)
    targets = torch.arange(model.num_masked).repeat(2)
    torch.testing.assert_close(out.loss, F.cross_entropy(logits, targets), rtol=1e-9, atol=1e-10)


@EVERY_ARM
def test_every_parameter_learns_and_none_stands_idle(options):
    model = tiny_model(**options)
    model(random_images(), generator=seeded()).loss.backward()
    for name, parameter in model.named_parameters():  # one without a gradient would stop DistributedDataParallel
        assert parameter.grad is not None and parameter.grad.isfinite().all() and parameter.grad.any(), name


@EVERY_ARM
def test_no_query_sees_a_hidden_patch(options):
    model = tiny_model(**options).eval()
    images = normalize(random_images(2)).requires_grad_()
    out = model(images, generator=seeded())
    if model.query_form == "location":
        assert not torch.autograd.grad(out.queries.sum(), images, allow_unused=True, retain_graph=True)[0]
    else:
        weights = torch.randn(out.queries.shape, generator=seeded())
        (gradient,) = torch.autograd.grad((out.queries * weights).sum(), images, retain_graph=True)
        strength = patchify(gradient, TINY).abs().amax(dim=(2, 3, 4))
        assert strength.gather(1, out.masked).eq(0).all() and strength.gather(1, out.visible).gt(0).all()
    (gradient,) = torch.autograd.grad(out.loss, images)
    reached = patchify(gradient, TINY).abs().amax(dim=(2, 3, 4))
    assert reached.gather(1, out.masked).gt(0).all()
    assert reached.gather(1, out.visible).gt(0).all() != (model.query_form == "location")


@EVERY_ARM
def test_loss_starts_near_chance_and_falls_in_30_steps(options):
    ramp = torch.linspace(0, 195, 12).long()
    images = (ramp[:, None] // 2 + ramp // 2 + torch.randint(0, 60, (16, 3, 12, 12), generator=seeded())).to(
        torch.uint8
    )
    model = tiny_model(**options)
    visible, masked = sample_masks(16, TINY, model.num_masked, seeded())
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    losses = []
    for _ in range(30):
        optimizer.zero_grad()
        out = model(images, visible, masked, seeded(len(losses)))
        out.loss.backward()
        optimizer.step()
        losses.append(out.loss.item())
        if len(losses) == 1:
            assert 0.05 < out.logits.std(dim=2).mean() < 5, "v·h is of order 1"
    assert sum(losses[-5:]) / 5 < 0.7 * losses[0]
    assert sum(losses[-5:]) / 5 < 0.8 * math.log(model.num_masked)


@EVERY_ARM
def test_looking_at_one_image(options):
    beliefs = look(tiny_model(**options).eval(), random_images(1)[0], masked=[0, 4, 5])
    assert beliefs.logits.shape == (3, 3) and 0 <= beliefs.right <= 3
    if "pooling" in options or options.get("queries") == "location":
        with pytest.raises(SelfieLiteError, match="no attention to show"):
            beliefs.attention_from(None)
    else:
        assert beliefs.attention_from(None).shape == (6,)


def test_location_passes_only_hidden_patches_through_p_and_has_no_pool():
    model, seen = tiny_model(queries="location"), []
    model.patch_network.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0].shape))
    out = model(random_images(), generator=seeded())
    assert seen == [(4, 3, 3, 4, 4)] and model.pool is None and not model.has_attention
    assert torch.equal(out.queries, model.positions()[out.masked])
    with pytest.raises(SelfieLiteError, match="no attention to show"):
        model(random_images(), return_attention=True)


def test_first_weights_are_those_of_the_baseline_where_shapes_allow():
    baseline = tiny_model().state_dict()
    for options in ARMS.values():
        own = tiny_model(**options).state_dict()
        shared = own.keys() & baseline.keys()
        assert shared >= {"patch_network.conv1.weight", "positions.location"}
        assert all(torch.equal(own[name], baseline[name]) for name in shared)
    untied = tiny_model(tied=False)
    assert torch.equal(untied.encoder_network.conv1.weight, untied.patch_network.conv1.weight)
    assert untied.encoder_network.conv1.weight is not untied.patch_network.conv1.weight


def test_context_and_location_meet_or_not():
    """A change of the image moves every query alike where v = u + e, and not at all where v = e."""
    visible, masked = sample_masks(2, TINY, 3, seeded())
    visible, masked = visible[:1].repeat(2, 1), masked[:1].repeat(2, 1)  # one puzzle, two images
    spread = {}
    for form in QUERIES:
        queries = tiny_model(queries=form).double().eval()(random_images(2), visible, masked).queries
        moved = queries[1] - queries[0]
        spread[form] = (moved - moved.mean(dim=0)).abs().max().item()
        assert moved.any() != (form == "location")
    assert spread["additive"] < 1e-12 and spread["location"] == 0
    assert min(spread[form] for form in ("multiplicative", "mlp", "mask_token")) > 1e-6


def test_crops_of_cells_by_slices():
    patches = torch.arange(2 * 9 * 3 * 4 * 4).view(2, 9, 3, 4, 4)
    offsets = sample_offsets(2, TINY, 2, seeded())
    assert offsets.shape == (2, 9, 2) and offsets.dtype == torch.int64
    crops = crop_patches(patches, 2, offsets)
    for b in range(2):
        for n in range(9):
            row, column = offsets[b, n]
            assert torch.equal(crops[b, n], patches[b, n, :, row : row + 2, column : column + 2])
    assert torch.equal(crop_patches(patches, 2), patches[..., 1:3, 1:3])
    assert torch.equal(crop_patches(patches, 1), patches[..., 0:3, 0:3])
    counts = sample_offsets(2000, TINY, 2, seeded()).flatten(0, 1).unique(dim=0, return_counts=True)
    assert counts[0].tolist() == [[r, c] for r in range(3) for c in range(3)]
    assert (counts[1] - 2000).abs().max() < 200  # each of the nine places equally often
    with pytest.raises(SelfieLiteError, match=r"offsets must be int64 of shape \(2, 9, 2\)"):
        crop_patches(patches, 2, offsets[:1])


def test_a_gap_is_random_in_training_and_the_middle_in_evaluation():
    model, images = tiny_model(gap=2), random_images()
    masks = sample_masks(4, TINY, 3, seeded())
    one, same, other = (model(images, *masks, seeded(seed)).loss for seed in (1, 1, 2))
    assert torch.equal(one, same) and not torch.equal(one, other)
    given = model(images, *masks, offsets=sample_offsets(4, TINY, 2, seeded(1))).loss
    assert torch.equal(given, one)
    model.eval()
    assert torch.equal(model(images, *masks, seeded(1)).loss, model(images, *masks, seeded(2)).loss)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"queries": "location", "pooling": "mean"}, "look at no visible patch"),
        ({"queries": "location", "tied": False}, "look at no visible patch"),
        ({"queries": "location", "encoder_positions": False}, "look at no visible patch"),
        ({"gap": 4}, "gap must lie between 0 and 3, but is 4"),
        ({"gap": 1.5}, r"gap must be a whole number, but is 1.5 \(float\)"),
        ({"norm": "grup"}, "unknown norm 'grup'. Did you mean 'group'"),
        ({"tied": "no"}, r"tied must be a bool, but is 'no' \(str\)"),
    ],
)
def test_settings_that_cannot_be(options, message):
    with pytest.raises(SelfieLiteError, match=message):
        tiny_model(**options)
