"""A, against PyTorch's own Transformer layer, and what may influence what."""

import pytest
import torch
from torch import nn

from selfie_lite import AttentionBlock, AttentionPooling, SelfieLiteError

DIM, HEADS, HIDDEN = 32, 4, 48


def randomize(module):
    """Every parameter random: fresh layer norms and biases would hide mistakes."""
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.3)
    return module.double().eval()


def block():
    torch.manual_seed(0)
    return randomize(AttentionBlock(DIM, HEADS, HIDDEN))


def pooling(**options):
    torch.manual_seed(0)
    return randomize(AttentionPooling(DIM, 2, HEADS, HIDDEN, **options))


def torch_layer(ours):
    """nn.TransformerEncoderLayer with the weights of an AttentionBlock."""
    layer = nn.TransformerEncoderLayer(
        DIM, HEADS, HIDDEN, activation="gelu", batch_first=True, norm_first=False, dtype=torch.float64
    )
    names = {"qkv.": "self_attn.in_proj_", "project.": "self_attn.out_proj."}
    state = {}
    for name, value in ours.state_dict().items():
        for old, new in names.items():
            name = name.replace(old, new)
        state[name] = value
    layer.load_state_dict(state)
    return layer.eval()


def tokens(batch=3, count=7, seed=1):
    return torch.randn(batch, count, DIM, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def some_allowed():
    allowed = torch.rand(7, 7, generator=torch.Generator().manual_seed(2)) < 0.5
    return allowed | torch.eye(7, dtype=torch.bool)


@pytest.mark.parametrize("return_attention", [False, True])
@pytest.mark.parametrize("allowed", [None, some_allowed()], ids=["all", "some"])
def test_block_equals_torchs_layer(allowed, return_attention):
    ours, x = block(), tokens()
    layer = torch_layer(ours)
    result, attention = ours(x, allowed, return_attention)
    forbidden = None if allowed is None else ~allowed  # PyTorch says what is not allowed
    torch.testing.assert_close(result, layer(x, src_mask=forbidden), rtol=1e-10, atol=1e-12)
    if not return_attention:
        assert attention is None
        return
    _, expected = layer.self_attn(x, x, x, attn_mask=forbidden, average_attn_weights=False)
    torch.testing.assert_close(attention, expected, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(attention.sum(dim=-1), torch.ones(3, HEADS, 7, dtype=torch.float64))
    if allowed is not None:
        assert attention[..., ~allowed].eq(0).all()
        assert attention[..., allowed].gt(0).all()


@pytest.mark.parametrize("return_attention", [False, True])
def test_gradients_equal_torchs_layer(return_attention):
    ours, x = block(), tokens()
    layer = torch_layer(ours)
    weights = tokens(seed=3)
    (ours(x, None, return_attention)[0] * weights).sum().backward()
    (layer(x) * weights).sum().backward()
    theirs = [layer.self_attn.in_proj_weight, layer.self_attn.out_proj.weight, layer.linear1.weight, layer.norm1.bias]
    for a, b in zip([ours.qkv.weight, ours.project.weight, ours.linear1.weight, ours.norm1.bias], theirs, strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-9, atol=1e-11)


def test_dropout_only_in_training_and_before_each_residual_connection():
    x = tokens()
    ours = block().train()
    for return_attention in (False, True):
        a, b = (ours(x, None, return_attention)[0] for _ in range(2))
        assert not torch.equal(a, b)
        a, b = (ours.self_attention(x, None, return_attention)[0] for _ in range(2))
        assert not torch.equal(a, b)  # attention weights are dropped too
    ours.dropout = 1.0  # nothing but the residual connections is left
    torch.testing.assert_close(ours(x, return_attention=True)[0], ours.norm2(ours.norm1(x)))
    ours.dropout = 0.0
    trained = ours(x)[0]
    ours.dropout = 0.1
    torch.testing.assert_close(ours.eval()(x)[0], trained)


def test_dropout_leaves_the_expectation():
    """Attention weights and both sublayers: a tenth is dropped, the rest scaled up."""
    torch.manual_seed(0)
    ours = randomize(AttentionBlock(DIM, HEADS, HIDDEN, dropout=0.1)).train()
    x = tokens(1).expand(4000, -1, -1)
    expected = ours.eval().self_attention(x[:1])[0]
    ours.train()
    for return_attention in (False, True):
        average = ours.self_attention(x, None, return_attention)[0].mean(dim=0, keepdim=True)
        torch.testing.assert_close(average, expected, rtol=0, atol=0.15 * expected.abs().max().item())


def test_summary_is_the_output_at_u0():
    pool, x = pooling(), tokens()
    state = torch.cat([pool.summary_token.expand(3, 1, DIM), x], dim=1)
    attentions = []
    for one in pool.blocks:
        state, attention = one(state, return_attention=True)
        attentions.append(attention[:, :, 0, 1:])  # from u0 to the vectors
    torch.testing.assert_close(pool(x), state[:, 0], rtol=1e-10, atol=1e-12)
    summary, outputs, attention = pool.encode(x, return_attention=True)
    torch.testing.assert_close(summary, state[:, 0], rtol=1e-10, atol=1e-12)
    assert outputs is None
    assert attention.shape == (3, 2, HEADS, 1, 7)
    torch.testing.assert_close(attention[:, :, :, 0], torch.stack(attentions, dim=1), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("kind", ["attention", "mean", "max"])
def test_the_order_of_the_vectors_does_not_matter(kind):
    pool, x = pooling(pooling=kind), tokens()
    order = torch.tensor([3, 0, 6, 5, 1, 4, 2])
    torch.testing.assert_close(pool(x[:, order]), pool(x), rtol=1e-10, atol=1e-12)
    other = x.clone()
    other[:, 3] *= 2
    assert not torch.allclose(pool(other), pool(x))  # but what they say does


def test_images_do_not_mix():
    pool, x = pooling(), tokens()
    torch.testing.assert_close(pool(x[1:2]), pool(x)[1:2], rtol=1e-10, atol=1e-12)


def test_mean_and_max_are_torchs():
    x = tokens()
    assert torch.equal(pooling(pooling="mean")(x), torch.mean(x, dim=1))
    assert torch.equal(pooling(pooling="max")(x), torch.max(x, dim=1).values)
    assert list(pooling(pooling="mean").parameters()) == list(pooling(pooling="max").parameters()) == []


def test_mean_is_attention_without_preference():
    """One block of equal weights gives the mean of u0 and the vectors: the limit of infinite temperature."""
    one, x = block(), tokens()
    one.qkv.weight.data[: 2 * DIM], one.qkv.bias.data[: 2 * DIM] = 0, 0  # queries and keys
    attended, attention = one.self_attention(x, return_attention=True)
    torch.testing.assert_close(attention, torch.full_like(attention, 1 / 7))
    values = nn.functional.linear(x.mean(dim=1, keepdim=True), one.qkv.weight[2 * DIM :], one.qkv.bias[2 * DIM :])
    torch.testing.assert_close(attended, one.project(values).expand(-1, 7, -1))


@pytest.mark.parametrize("return_attention", [False, True])
def test_mask_tokens_influence_neither_u_nor_each_other(return_attention):
    pool, x, masks = pooling(), tokens(), tokens(count=4, seed=5)
    summary, outputs, _ = pool.encode(x, masks, return_attention)
    assert outputs.shape == (3, 4, DIM)
    torch.testing.assert_close(summary, pool(x), rtol=1e-10, atol=1e-12)
    changed = masks.clone()
    changed[:, 2] += 1
    summary_changed, outputs_changed, _ = pool.encode(x, changed, return_attention)
    torch.testing.assert_close(summary_changed, summary, rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(outputs_changed[:, [0, 1, 3]], outputs[:, [0, 1, 3]], rtol=1e-12, atol=1e-13)
    assert not torch.allclose(outputs_changed[:, 2], outputs[:, 2])
    for j in range(4):
        _, alone, _ = pool.encode(x, masks[:, j : j + 1], return_attention)
        torch.testing.assert_close(alone[:, 0], outputs[:, j], rtol=1e-10, atol=1e-12)


def test_a_mask_token_sees_u0_the_vectors_and_itself():
    """Its output, from PyTorch's layers, where the token stands alone beside u0 and the vectors."""
    pool, x, masks = pooling(), tokens(), tokens(count=2, seed=5)
    _, outputs, attention = pool.encode(x, masks, return_attention=True)
    forbidden = torch.zeros(9, 9, dtype=torch.bool)
    forbidden[:8, 8] = True  # u0 and the vectors do not look at the mask token
    for j in range(2):
        state = torch.cat([pool.summary_token.expand(3, 1, DIM), x, masks[:, j : j + 1]], dim=1)
        for depth, one in enumerate(pool.blocks):
            layer = torch_layer(one)
            _, weights = layer.self_attn(state, state, state, attn_mask=forbidden, average_attn_weights=False)
            torch.testing.assert_close(attention[:, depth, :, 0], weights[:, :, 0, 1:8], rtol=1e-9, atol=1e-11)
            torch.testing.assert_close(attention[:, depth, :, 1 + j], weights[:, :, 8, 1:8], rtol=1e-9, atol=1e-11)
            state = layer(state, src_mask=forbidden)
        torch.testing.assert_close(outputs[:, j], state[:, 8], rtol=1e-9, atol=1e-11)
    assert attention.shape == (3, 2, HEADS, 3, 7)
    assert attention.sum(dim=-1).lt(1).all()  # the rest lies on u0 and the token itself


def test_defaults_are_those_of_the_design():
    pool = AttentionPooling(1024)
    assert len(pool.blocks) == 3
    for one in pool.blocks:
        assert (one.num_heads, one.linear1.out_features, one.dropout) == (32, 640, 0.1)
    assert pool.summary_token.shape == (1024,)


def test_summary_starts_with_length_one():
    torch.manual_seed(0)
    pool = AttentionPooling(256, num_heads=8, hidden_dim=160).eval()
    torch.testing.assert_close(pool(torch.randn(4, 12, 256)).norm(dim=1), torch.ones(4), rtol=0.01, atol=0)


@pytest.mark.parametrize("kind", ["mean", "max"])
@pytest.mark.parametrize("asked", [{"mask_tokens": tokens()}, {"return_attention": True}], ids=["tokens", "attention"])
def test_mean_and_max_have_no_mask_tokens_and_no_weights(kind, asked):
    with pytest.raises(SelfieLiteError, match=f'only pooling="attention".*not "{kind}"'):
        pooling(pooling=kind).encode(tokens(), **asked)


def test_unknown_pooling():
    with pytest.raises(SelfieLiteError, match="unknown pooling 'atention'. Did you mean 'attention'"):
        AttentionPooling(DIM, pooling="atention")


def test_heads_that_do_not_divide():
    with pytest.raises(SelfieLiteError, match="num_heads must divide dim 32, but is 5"):
        AttentionBlock(DIM, 5, HIDDEN)
