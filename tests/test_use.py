"""The paper's files as others use them: compiled, exported, on another device, with arguments that cannot be."""

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from selfie_lite import (
    AttentionPooling,
    PatchGrid,
    PatchNetwork,
    PositionalEmbedding,
    Selfie,
    SelfieLiteError,
    augment,
    denormalize,
    masked_patch_logits,
    multi_location_loss,
    normalize,
    patchify,
    sample_masks,
)
from selfie_lite.augment import make_crop, pad_crop_flip, random_resized_crop_flip
from selfie_lite.training.pretrain import PretrainConfig, forward, make_draw

TINY = PatchGrid(12, 4)
IMAGES = torch.randint(0, 256, (2, 3, 12, 12), generator=torch.Generator().manual_seed(0)).to(torch.uint8)


def tiny_model(**options):
    return Selfie(TINY, arch="resnet18", num_masked=3, num_blocks=1, **options)


@pytest.mark.parametrize("queries", ["additive", "location", "mask_token"])
def test_compiles_whole_and_exports(queries):
    model, masks = tiny_model(queries=queries, dropout=0.0).eval(), sample_masks(2, TINY, 3)
    with torch.no_grad():
        expected = model(IMAGES, *masks).logits
        compiled = torch.compile(model, fullgraph=True, backend="eager")  # a graph break is an error
        torch.testing.assert_close(compiled(IMAGES, *masks).logits, expected)
        program = torch.export.export(model, (IMAGES, *masks))
        torch.testing.assert_close(program.module()(IMAGES, *masks).logits, expected)


@pytest.mark.parametrize("queries", ["additive", "location", "mask_token"])
@pytest.mark.parametrize("size, patch", [(32, 8), (224, 32)])
def test_a_training_step_keeps_everything_on_the_gpu(size, patch, queries):
    config = PretrainConfig(arch="resnet18", image_size=size, patch_size=patch, queries=queries, gap=2)
    with FakeTensorMode():  # finds a tensor on the wrong device without there being a GPU
        with torch.device("cuda"):
            model = Selfie(config.grid, "resnet18", queries=queries, gap=2)
        images = torch.empty(2, 3, size, size, dtype=torch.uint8, device="cuda")
        crop = make_crop(size, 0)
        draw = make_draw(config, 4, lambda images, generator: crop(images, generator=generator))
        drawn = draw(images, None, torch.Generator().manual_seed(0))
        out = forward(model, *drawn)
        assert out["loss"].device.type == out["accuracy"].device.type == "cuda"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64], ids=str)
def test_models_of_every_precision_take_uint8_images(dtype):
    assert tiny_model().to(dtype)(IMAGES).logits.dtype == dtype


FLOATS = IMAGES.float()
CALLS = {
    "list as images": (lambda: tiny_model()(IMAGES.tolist()), "images must be a Tensor, but is of type list"),
    "array as images": (lambda: tiny_model()(IMAGES.numpy()), "images must be a Tensor, but is of type ndarray"),
    "0 to 255": (lambda: tiny_model()(FLOATS), "must be normalised"),
    "0 to 1": (lambda: tiny_model()(FLOATS / 255), "must be normalised"),
    "NaN": (lambda: tiny_model()(FLOATS * float("nan")), "no numbers"),
    "complex": (lambda: tiny_model()(FLOATS.to(torch.complex64)), "must be uint8"),
    "empty batch": (lambda: tiny_model()(IMAGES[:0]), "the batch is empty"),
    "masks of bool": (
        lambda: tiny_model()(IMAGES, torch.ones(2, 9, dtype=torch.bool), torch.ones(2, 9).bool()),
        "int64",
    ),
    "masks as lists": (lambda: tiny_model()(IMAGES, [[0], [0]], [[1], [1]]), "visible must be a Tensor"),
    "generator of NumPy": (lambda: tiny_model()(IMAGES, generator=np.random.default_rng(0)), "generator must be"),
    "seed as generator": (lambda: augment(IMAGES, 7), "generator must be a Generator, but is 7"),
    "True hidden": (lambda: sample_masks(2, TINY, True), "num_masked must be a whole number, but is True"),
    "negative batch": (lambda: sample_masks(-1, TINY, 2), "batch_size must be 0 or more"),
    "no grid": (lambda: Selfie(32), "grid must be a PatchGrid, but is 32"),
    "float size": (lambda: PatchGrid(32.0, 8), "image_size must be a whole number, but is 32.0"),
    "array to cut": (lambda: patchify(IMAGES.numpy(), TINY), "images must be a Tensor"),
    "dropout of 2": (lambda: tiny_model(dropout=2), "dropout must lie between 0 and 1, but is 2"),
    "no heads": (lambda: tiny_model(num_heads=0), "num_heads must be 1 or more"),
    "negative width": (lambda: tiny_model(hidden_dim=-3), "hidden_dim must be 1 or more"),
    "no blocks": (lambda: AttentionPooling(32, 0, 4, 8), "num_blocks must be 1 or more"),
    "other dim": (lambda: AttentionPooling(32, 1, 4, 8)(torch.randn(2, 3, 16)), "batch, patches, 32"),
    "positions of no dim": (lambda: PositionalEmbedding(TINY, 0), "dim must be 1 or more"),
    "uint8 patches": (lambda: PatchNetwork("resnet18")(IMAGES[None]), "normalised float"),
    "whole queries": (lambda: masked_patch_logits(*[torch.ones(1, 2, 3, dtype=torch.int64)] * 2), "must be float"),
    "nothing to place": (lambda: multi_location_loss(torch.ones(2, 0, 3), torch.ones(2, 0, 3)), "no hidden patch"),
    "list to normalise": (lambda: normalize([1, 2]), "images must be a Tensor"),
    "uint8 to denormalise": (lambda: denormalize(IMAGES), "normalised float"),
    "padding": (lambda: pad_crop_flip(IMAGES, 1.5), "padding must be a whole number, but is 1.5"),
    "scale": (lambda: random_resized_crop_flip(IMAGES, scale=(0.5, 0.1)), "scale must be two numbers"),
}


@pytest.mark.parametrize("call, message", CALLS.values(), ids=CALLS)
def test_what_cannot_be_is_said(call, message):
    with pytest.raises(SelfieLiteError, match=message):
        call()
