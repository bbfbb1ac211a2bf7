"""The whole model: what goes in, what comes out, what may leak and what must learn."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from selfie_lite import PatchGrid, Selfie, SelfieLiteError, load_dataset, normalize, patchify, sample_masks
from selfie_lite.selfie import take

SMALL, LARGE = PatchGrid(32, 8), PatchGrid(224, 32)
TINY = PatchGrid(12, 4)  # 3×3
FORMS = pytest.mark.parametrize("queries", ["additive", "mask_token"])


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def small_model(grid=SMALL, **options):
    torch.manual_seed(0)
    return Selfie(grid, arch="resnet18", **options)


def random_images(batch=4, size=32):
    return torch.randint(0, 256, (batch, 3, size, size), generator=seeded()).to(torch.uint8)


# What comes out


@pytest.mark.parametrize(
    "grid, masked, stem, vectors", [(SMALL, 4, "small", 16), (LARGE, 12, "imagenet", 14)], ids=["32/8", "224/32"]
)
def test_defaults_are_the_papers(grid, masked, stem, vectors):
    model = Selfie(grid)
    assert model.num_masked == masked
    assert (model.patch_network.arch, model.patch_network.stem) == ("resnet50", stem)
    assert sum(p.numel() for p in model.positions.parameters()) == vectors * 1024
    assert (model.query_form, model.pool.pooling) == ("additive", "attention")
    (block, *_), count = model.pool.blocks, len(model.pool.blocks)
    assert (count, block.num_heads, block.linear1.out_features, block.dropout) == (3, 32, 640, 0.1)
    assert "mask_token" not in dict(model.named_parameters())


@FORMS
@pytest.mark.parametrize("grid", [SMALL, LARGE], ids=["32/8", "224/32"])
def test_output_recomputed_by_hand(grid, queries):
    model, images = small_model(grid, queries=queries).eval(), random_images(2, grid.image_size)
    with torch.no_grad():
        out = model(images, generator=seeded())
        features = model.patch_network(patchify(normalize(images), grid))
    m = grid.count // 4
    assert out.logits.shape == (2, m, m) and out.queries.shape == (2, m, 256)
    losses, right = [], []
    for b in range(2):
        for i in range(m):
            row = torch.stack([out.queries[b, i] @ features[b, location] for location in out.masked[b]])
            torch.testing.assert_close(out.logits[b, i], row, rtol=1e-4, atol=1e-4)
            losses.append(row.exp().sum().log() - row[i])
            right.append(float(row.argmax() == i))
    torch.testing.assert_close(out.loss, torch.stack(losses).mean(), rtol=1e-4, atol=1e-4)
    assert out.accuracy.item() == pytest.approx(sum(right) / len(right))
    assert not out.accuracy.requires_grad


def test_accuracy_counts_the_diagonal(monkeypatch):
    model = small_model().eval()
    logits = torch.zeros(2, 4, 4)
    for b, i, choice in [(0, 0, 0), (0, 1, 1), (0, 2, 3), (0, 3, 0), (1, 0, 0), (1, 1, 0), (1, 2, 1), (1, 3, 2)]:
        logits[b, i, choice] = 2
    monkeypatch.setattr("selfie_lite.selfie.masked_patch_logits", lambda queries, features: logits)
    assert model(random_images(2)).accuracy.item() == pytest.approx(3 / 8)


def test_additive_queries_are_u_plus_e():
    model, images = small_model().eval(), random_images(2)
    out = model(images, generator=seeded())
    h, e = model.patch_network(patchify(normalize(images), SMALL)), model.positions()
    for b in range(2):
        context = torch.stack([h[b, location] + e[location] for location in out.visible[b]])
        u = model.pool(context[None])[0]
        for j, location in enumerate(out.masked[b]):
            torch.testing.assert_close(out.queries[b, j], u + e[location], rtol=1e-4, atol=1e-5)


def test_mask_token_queries_go_through_the_transformer():
    model, images = small_model(queries="mask_token").eval(), random_images(2)
    out = model(images, generator=seeded())
    h, e = model.patch_network(patchify(normalize(images), SMALL)), model.positions()
    for b in range(2):
        context = torch.stack([h[b, location] + e[location] for location in out.visible[b]])[None]
        for j, location in enumerate(out.masked[b]):
            _, v, _ = model.pool.encode(context, (model.mask_token + e[location])[None, None])
            torch.testing.assert_close(out.queries[b, j], v[0, 0], rtol=1e-4, atol=1e-5)


@FORMS
def test_attention_on_demand(queries):
    model, images = small_model(queries=queries, num_blocks=2).eval(), random_images(3)
    plain = model(images, generator=seeded())
    shown = model(images, generator=seeded(), return_attention=True)
    assert plain.attention is None
    asking = 1 if queries == "additive" else 5
    assert shown.attention.shape == (3, 2, 8, asking, 12)
    assert shown.attention.gt(0).all() and shown.attention.sum(dim=-1).lt(1).all()
    for name in ("loss", "accuracy", "logits", "queries", "visible", "masked"):
        torch.testing.assert_close(getattr(shown, name), getattr(plain, name), rtol=1e-4, atol=1e-5)


def test_uint8_and_normalised_float_images_give_one_loss():
    model, images = small_model().eval(), random_images()
    a, b = model(images, generator=seeded()), model(normalize(images), generator=seeded())
    assert torch.equal(a.loss, b.loss) and torch.equal(a.logits, b.logits)


@FORMS
def test_given_masks_are_used(queries):
    model, images = small_model(queries=queries).eval(), random_images(2)
    visible, masked = torch.tensor([[5, 0, 9], [2, 7, 15]]), torch.tensor([[3, 1], [4, 0]])  # any number and order
    out = model(images, visible, masked)
    assert torch.equal(out.visible, visible) and torch.equal(out.masked, masked)
    assert out.logits.shape == (2, 2, 2)
    swapped = model(images, visible, masked.flip(1))
    torch.testing.assert_close(swapped.queries, out.queries.flip(1), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(swapped.loss, out.loss, rtol=1e-4, atol=1e-5)
    elsewhere = model(images, visible, torch.tensor([[3, 2], [4, 0]]))
    assert not torch.allclose(elsewhere.loss, out.loss)


def test_masks_are_drawn_from_the_generator():
    model, images = small_model(num_masked=5), random_images()
    state = torch.get_rng_state()
    out = model.eval()(images, generator=seeded(3))
    visible, masked = sample_masks(4, SMALL, 5, seeded(3))
    assert torch.equal(out.visible, visible) and torch.equal(out.masked, masked)
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(model(images, generator=seeded(4)).masked, masked)


@FORMS
def test_every_patch_goes_through_p_once(queries):
    model, calls = small_model(queries=queries), []
    model.patch_network.register_forward_hook(lambda module, inputs, output: calls.append(inputs[0].shape))
    model.patch_network.conv1.register_forward_hook(lambda module, inputs, output: calls.append(inputs[0].shape))
    model(random_images())
    assert calls == [(64, 3, 8, 8), (4, 16, 3, 8, 8)]


# What may influence what


def test_summary_does_not_depend_on_the_order_of_the_visible_patches():
    model = small_model().double().eval()
    features = torch.randn(2, 16, 256, dtype=torch.float64)
    visible, masked = sample_masks(2, SMALL, 4, seeded())
    order = torch.randperm(12, generator=seeded())
    v, _ = model.make_queries(features, visible, masked)
    permuted, _ = model.make_queries(features, visible[:, order], masked)
    torch.testing.assert_close(permuted, v, rtol=1e-10, atol=1e-12)

    # the same vectors, but two of them have exchanged their locations
    exchanged = features.clone()
    a, b = visible[:, 0], visible[:, 5]
    rows = torch.arange(2)
    exchanged[rows, a], exchanged[rows, b] = features[rows, b], features[rows, a]
    moved, _ = model.make_queries(exchanged, visible, masked)
    assert (moved - v).abs().amax(dim=(1, 2)).min() > 1e-4


@FORMS
def test_no_query_sees_a_masked_patch(queries):
    model = small_model(queries=queries).eval()
    images = normalize(random_images(3)).requires_grad_()
    out = model(images, generator=seeded())
    weights = torch.randn(out.queries.shape, generator=seeded())
    (gradient,) = torch.autograd.grad((out.queries * weights).sum(), images)
    strength = patchify(gradient, SMALL).abs().amax(dim=(2, 3, 4))  # (B, N)
    for b in range(3):
        assert strength[b, out.masked[b]].eq(0).all()
        assert strength[b, out.visible[b]].gt(0).all()


@FORMS
def test_the_loss_reaches_visible_and_masked_patches(queries):
    model = small_model(queries=queries).eval()
    images = normalize(random_images(2)).requires_grad_()
    model(images, generator=seeded()).loss.backward()
    assert patchify(images.grad, SMALL).abs().amax(dim=(2, 3, 4)).gt(0).all()  # P trains on both sides


def test_images_do_not_mix_in_evaluation():
    model, images = small_model().eval(), random_images()
    out = model(images, generator=seeded())
    alone = model(images[1:2], out.visible[1:2], out.masked[1:2])
    torch.testing.assert_close(alone.logits[0], out.logits[1], rtol=1e-4, atol=1e-4)


def test_take():
    features = torch.randn(2, 16, 3)
    locations = torch.tensor([[5, 0], [15, 5]])
    expected = torch.stack([features[0, [5, 0]], features[1, [15, 5]]])
    assert torch.equal(take(features, locations), expected)


# Learning


@FORMS
@pytest.mark.parametrize("grid", [SMALL, LARGE], ids=["32/8", "224/32"])
def test_one_step_reaches_every_parameter(grid, queries):
    model = small_model(grid, queries=queries)
    model(random_images(2, grid.image_size), generator=seeded()).loss.backward()
    names = {name.split(".")[0] for name, _ in model.named_parameters()}
    assert names == {"patch_network", "positions", "pool"} | ({"mask_token"} if queries == "mask_token" else set())
    assert model.pool.summary_token.grad.any()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().max() > 1e-9, name


@pytest.mark.parametrize("pooling, reduce", [("mean", torch.mean), ("max", torch.amax)])
def test_mean_and_max_pooling(pooling, reduce):
    model, images = small_model(pooling=pooling), random_images()
    out = model(images, generator=seeded())
    out.loss.backward()
    assert all(p.grad.isfinite().all() and p.grad.any() for p in model.parameters())
    model.eval()
    out, e = model(images, generator=seeded()), model.positions()
    features = model.patch_network(patchify(normalize(images), SMALL))
    u = reduce(take(features, out.visible) + e[out.visible], dim=1)
    torch.testing.assert_close(out.queries, F.normalize(u, dim=1)[:, None] + e[out.masked])  # |u| = 1, as |e|


@FORMS
def test_overfits_64_images(queries):
    images = load_dataset("sample").batch(slice(64))[0].float()
    images = normalize(F.interpolate(images, size=(12, 12), mode="area").round().to(torch.uint8))
    model = small_model(TINY, queries=queries, num_masked=3, num_blocks=2, dropout=0.0)
    visible, masked = sample_masks(64, TINY, 3, seeded())
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-4)
    for _ in range(40):
        out = model(images, visible, masked)
        if out.accuracy > 0.95:
            break
        optimizer.zero_grad()
        out.loss.backward()
        optimizer.step()
    assert out.accuracy > 0.95  # chance: 0.33
    assert out.loss < 0.8  # chance: 1.10


# Mistakes


@pytest.mark.parametrize(
    "options, message",
    [
        ({"arch": "resnet51"}, "unknown arch 'resnet51'. Did you mean 'resnet50'"),
        ({"queries": "masktoken"}, "unknown queries 'masktoken'. Did you mean 'mask_token'"),
        ({"pooling": "average"}, "unknown pooling 'average'.*'?mean'?"),
        ({"pooling": "attn"}, "unknown pooling 'attn'. Did you mean 'attention'"),
        ({"stem": "smal"}, "unknown stem 'smal'. Did you mean 'small'"),
        ({"queries": "mask_token", "pooling": "mean"}, 'queries="mask_token" needs pooling="attention", not "mean"'),
        ({"queries": "mask_token", "pooling": "max"}, 'queries="mask_token" needs pooling="attention", not "max"'),
        ({"num_masked": 0}, "num_masked must lie between 1 and 15 .*but is 0"),
        ({"num_masked": 16}, "num_masked must lie between 1 and 15 .*but is 16"),
        ({"num_heads": 7}, "num_heads must divide dim 256, but is 7"),
    ],
)
def test_models_that_cannot_be(options, message):
    with pytest.raises(SelfieLiteError, match=message):
        Selfie(SMALL, **{"arch": "resnet18", **options})


@pytest.mark.parametrize(
    "images, message",
    [
        (torch.zeros(2, 1, 32, 32, dtype=torch.uint8), "(batch, 3, height, width), RGB, but have (2, 1, 32, 32)"),
        (torch.zeros(2, 4, 32, 32), "(batch, 3, height, width), RGB"),
        (torch.zeros(2, 32, 32, 3), "(batch, 3, height, width), RGB"),
        (torch.zeros(3, 32, 32), "(batch, 3, height, width), RGB"),
        (torch.zeros(2, 3, 30, 30), "(batch, channels, 32, 32), but have (2, 3, 30, 30)"),
        (torch.zeros(2, 3, 224, 224, dtype=torch.uint8), "but have (2, 3, 224, 224). Resize them"),
        (torch.zeros(2, 3, 32, 64), "but have (2, 3, 32, 64)"),
        (torch.zeros(2, 3, 32, 32, dtype=torch.int64), "must be uint8, 0 to 255, or normalised float, but are"),
        (torch.zeros(2, 3, 32, 32, dtype=torch.bool), "must be uint8, 0 to 255, or normalised float, but are"),
    ],
    ids=lambda value: "x".join(map(str, value.shape)) if isinstance(value, torch.Tensor) else "",
)
def test_images_that_do_not_fit(images, message):
    with pytest.raises(SelfieLiteError) as error:
        small_model()(images)
    assert message in str(error.value)


@pytest.mark.parametrize(
    "visible, masked, message",
    [
        ([[0, 1, 2]], None, "give visible and masked together"),
        (None, [[3]], "give visible and masked together"),
        ([[0, 1, 2]], [[2, 3]], "stands twice"),
        ([[0, 1, 1]], [[2, 3]], "stands twice"),
        ([[0, 1, 2]], [[3, 3]], "stands twice"),
        ([[0, 1, 2]], [[3, 16]], "run from 0 to 15, but 0 to 16 were given"),
        ([[-1, 1, 2]], [[3, 4]], "run from 0 to 15, but -1 to 4 were given"),
        ([[0, 1], [2, 3]], [[4]], r"visible must be int64 of shape \(1, locations\)"),
        ([[0, 1]], [[4], [5]], r"masked must be int64 of shape \(1, locations\)"),
        ([0, 1], [[4]], "visible must be int64"),
        ([[0.0, 1.0]], [[4]], "visible must be int64.*is torch.float32"),
        ([[]], [[4]], "visible is empty"),
        ([[0]], [[]], "masked is empty"),
    ],
)
def test_masks_that_do_not_fit(visible, masked, message):
    def locations(rows):
        if rows is None:
            return None
        return torch.tensor(rows) if rows != [[]] else torch.zeros(1, 0, dtype=torch.int64)

    with pytest.raises(SelfieLiteError, match=message):
        small_model()(random_images(1), locations(visible), locations(masked))


@pytest.mark.parametrize("pooling", ["mean", "max"])
def test_no_attention_without_attention_pooling(pooling):
    with pytest.raises(SelfieLiteError, match="mask tokens and weights"):
        small_model(pooling=pooling)(random_images(1), return_attention=True)


def test_weights_travel_through_a_state_dict():
    model, images = small_model(queries="mask_token").eval(), random_images(2)
    torch.manual_seed(1)
    other = Selfie(SMALL, arch="resnet18", queries="mask_token").eval()
    assert not torch.equal(other(images, generator=seeded()).loss, model(images, generator=seeded()).loss)
    other.load_state_dict(model.state_dict())
    assert torch.equal(other(images, generator=seeded()).loss, model(images, generator=seeded()).loss)
    assert isinstance(other, nn.Module)


@pytest.mark.parametrize("queries", ["additive", "mask_token"])
def test_gradients_are_the_same_every_time_on_several_threads(queries):
    model = small_model(PatchGrid(16, 4), queries=queries, dropout=0.0)
    images = torch.randint(256, (32, 3, 16, 16), dtype=torch.uint8)
    visible, masked = sample_masks(len(images), model.grid, 4)
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        seen = []
        for _ in range(4):
            model.zero_grad()
            model(images, visible, masked).loss.backward()
            seen.append([parameter.grad.clone() for parameter in model.parameters()])
    finally:
        torch.set_num_threads(threads)
    for again in seen[1:]:
        assert all(torch.equal(a, b) for a, b in zip(seen[0], again, strict=True))
