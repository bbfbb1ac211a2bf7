"""What a model believes about one image, and what `look` refuses to be asked."""

import numpy as np
import pytest
import torch
from tiny import config

from selfie_lite import PatchGrid, Selfie, SelfieLiteError, load_dataset
from selfie_lite.beliefs import fit_image, look
from selfie_lite.training.pretrain import make_model
from selfie_lite.training.weights import load_pretrained

IMAGE = torch.randint(256, (3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def model():
    return make_model(config()).eval()


def test_beliefs_say_what_the_model_says():
    model, image = load_pretrained("mask_token"), load_dataset("sample", "test").images[7]
    beliefs = look(model, image, [3, 2, 13, 12])
    assert beliefs.masked.tolist() == [2, 3, 12, 13] and len(beliefs.visible) == 12
    with torch.no_grad():
        out = model(image[None], beliefs.visible[None], beliefs.masked[None])
    torch.testing.assert_close(beliefs.logits, out.logits[0])
    assert beliefs.loss == pytest.approx(out.loss.item(), abs=1e-5) and beliefs.right / 4 == out.accuracy.item()
    assert sorted(beliefs.letter(k) for k in range(4)) == ["A", "B", "C", "D"]
    weights = beliefs.attention_from(2)
    assert weights.shape == (12,) and not torch.equal(weights, beliefs.attention_from(None))
    torch.testing.assert_close(beliefs.attention_from(2, block=1, head=2), beliefs.attention[1, 2, 1])
    with pytest.raises(SelfieLiteError, match="location 4 is not hidden; hidden are 2, 3, 12 and 13"):
        beliefs.describe_guess(4)
    wrong = look(load_pretrained("additive"), image, list(range(10)))
    said = wrong.describe_puzzle()
    assert f"{wrong.right} of 10 right" in said and said.count("lies the patch") == 5
    assert f"and {10 - wrong.right - 5} more" in said


def test_a_pale_grey_image_is_an_image_too(model):
    pale = torch.randint(130, 150, (3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    assert look(model, pale, [1, 5]).logits.isfinite().all(), "normalised, its values lie between 0 and 1"


def test_images_are_cut_square_and_shrunk():
    image = torch.zeros(3, 64, 128, dtype=torch.uint8)
    image[:, :, 32:96] = 200
    fitted = fit_image(image, PatchGrid(32, 8))
    assert fitted.shape == (3, 32, 32) and (fitted == 200).all()


@pytest.mark.parametrize(
    ("image", "error"),
    [
        (IMAGE.numpy(), "image"),
        (IMAGE.tolist(), "image"),
        (None, "image"),
        (IMAGE.float(), "torch.float32. From 0 to 1"),
        (IMAGE / 255, "torch.float32. From 0 to 1"),
        (torch.full((3, 16, 16), float("nan")), "torch.float32"),
        (IMAGE.bool(), "torch.bool"),
        (IMAGE.long(), "torch.int64"),
        (IMAGE[:1], "make a grey image RGB"),
        (IMAGE[0], "make a grey image RGB"),
        (IMAGE[:2], r"but this has \(2, 16, 16\)"),
        (torch.cat([IMAGE, IMAGE[:1]]), "leave out its transparency"),
        (IMAGE.permute(1, 2, 0), "put the colours first"),
        (IMAGE[None], "a batch; give one of it"),
        (IMAGE[:, :0], "16×0 pixels, but the model takes 16×16"),
        (torch.empty(0, dtype=torch.uint8), r"but this has \(0,\)"),
        (IMAGE[:, :, :15], "15×16 pixels, but the model takes 16×16"),
    ],
)
def test_what_is_no_image_of_bytes_is_refused(model, image, error):
    with pytest.raises(SelfieLiteError, match=error):
        look(model, image)


@pytest.mark.parametrize(
    ("masked", "error"),
    [
        ([], "1 to 15 different locations from 0 to 15, but is "),
        (torch.zeros(16, dtype=torch.bool), "a mask"),
        ([True, False], "a mask"),
        (torch.tensor([1.0, 2.0]), "torch.float32"),
        ([float("nan")], "torch.float32"),
        ([1, 1], "different"),
        ([-1], "from 0 to 15"),
        ([16], "from 0 to 15"),
        (list(range(16)), "1 to 15"),
        ([[1, 2]], "1 to 15"),
        (3, "1 to 15"),
        (["a"], "whole numbers in a list"),
        ("12", "whole numbers in a list"),
        ([10**30], "whole numbers in a list"),
        ({1, 2}, "whole numbers in a list"),
    ],
)
def test_what_are_no_locations_is_refused(model, masked, error):
    with pytest.raises(SelfieLiteError, match=error):
        look(model, IMAGE, masked)


@pytest.mark.parametrize("masked", [(5, 2), range(2, 6), np.array([5, 2], dtype=np.int32), torch.tensor([5, 2])])
def test_locations_may_come_in_any_order_and_kind(model, masked):
    found = look(model, IMAGE, masked).masked
    assert found.dtype == torch.int64 and found.tolist() == sorted(int(at) for at in masked)


@pytest.mark.parametrize("seed", [1.5, "1", None, 2**70])
def test_what_is_no_seed_is_refused(model, seed):
    with pytest.raises(SelfieLiteError, match="seed must be a whole number"):
        look(model, IMAGE, seed=seed)


def test_what_is_no_model_is_refused(model):
    for wrong in ("additive", model.patch_network, None):
        with pytest.raises(SelfieLiteError, match="model"):
            look(wrong, IMAGE)
    broken = make_model(config())
    for parameter in broken.patch_network.parameters():
        parameter.data.fill_(float("nan"))
    with pytest.raises(SelfieLiteError, match="NaN or infinity"):
        look(broken, IMAGE)


def test_a_model_in_training_is_asked_in_evaluation_mode_and_stays_as_it_was(model):
    expected = look(model, IMAGE, [1, 5]).logits
    model.train()
    model.patch_network.bn1.eval()  # frozen, as some do
    before = {name: value.clone() for name, value in model.state_dict().items()}
    modes = [part.training for part in model.modules()]
    torch.testing.assert_close(look(model, IMAGE, [1, 5]).logits, expected)
    assert [part.training for part in model.modules()] == modes
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items()), "statistics of batches"
    with pytest.raises(SelfieLiteError):
        look(model, IMAGE, [99])
    assert [part.training for part in model.modules()] == modes
    model.eval()


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_models_of_other_precision_are_asked_too(dtype):
    torch.manual_seed(0)
    model = make_model(config()).eval()
    expected = look(model, IMAGE, [1, 5])
    beliefs = look(model.to(dtype), IMAGE, [1, 5])
    assert beliefs.logits.dtype == beliefs.attention.dtype == torch.float32
    torch.testing.assert_close(beliefs.probabilities, expected.probabilities, atol=0.05, rtol=0)


def test_a_model_that_looks_at_no_visible_patch_has_beliefs_but_no_attention():
    model = Selfie(PatchGrid(16, 4), arch="resnet18", queries="location").eval()
    beliefs = look(model, IMAGE, [1, 5])
    assert beliefs.logits.shape == (2, 2) and beliefs.attention is None
    with pytest.raises(SelfieLiteError, match="no attention to show"):
        beliefs.attention_from(None)
