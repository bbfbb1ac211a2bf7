"""Accuracy by row and by assignment against plain references, and what the controls must and must not change."""

from itertools import permutations

import pytest
import torch

from selfie_lite import PatchGrid, Selfie, SelfieLiteError, load_dataset, sample_masks
from selfie_lite.evaluation.puzzle import accuracies, puzzle_accuracy
from selfie_lite.training.weights import load_pretrained

CONTROLS = ("other_image", "other_image_and_holes", "mean_content")


def plain_assignment(logits):
    """The best of all arrangements, found by trying each."""
    size = logits.shape[-1]
    right = 0
    for one in logits.double():
        best = max(permutations(range(size)), key=lambda order: sum(one[j, k] for j, k in enumerate(order)))
        right += sum(j == k for j, k in enumerate(best)) / size
    return right / len(logits)


def test_accuracies_equal_a_plain_reference():
    logits = torch.randn(30, 4, 4, generator=torch.Generator().manual_seed(0)) + torch.eye(4)
    found = accuracies(logits)
    assert found["one_to_one"] == pytest.approx(plain_assignment(logits))
    assert found["row"] == pytest.approx(sum(one[j].argmax() == j for one in logits for j in range(4)).item() / 120)
    assert found["row"] != pytest.approx(found["one_to_one"])


@pytest.mark.parametrize("name", ["additive", "mask_token"])
def test_the_context_cancels_in_the_papers_form_alone(name):
    model = load_pretrained(name)
    images = load_dataset("sample", "test").images[:120]
    masks = sample_masks(120, model.grid, 4, generator=torch.Generator().manual_seed(0))
    found = puzzle_accuracy(model, images, *masks)
    assert list(found) == ["own", *CONTROLS]
    with torch.no_grad():
        assert found["own"]["row"] == pytest.approx(model(images, *masks).accuracy.item())
    assert found["own"]["one_to_one"] > found["own"]["row"] > 0.5
    changed = [abs(found[control]["one_to_one"] - found["own"]["one_to_one"]) for control in CONTROLS]
    assert max(changed) < 0.005 if name == "additive" else min(changed) > 0.2
    assert all(found[control]["row"] < found["own"]["row"] for control in CONTROLS)


def test_the_mode_comes_back_and_what_does_not_fit_is_told():
    model = Selfie(PatchGrid(16, 4), "resnet18", queries="location")
    images = torch.randint(0, 255, (3, 3, 16, 16), dtype=torch.uint8)
    visible, masked = sample_masks(3, model.grid, 4)
    found = puzzle_accuracy(model.train(), images, visible, masked)
    assert model.training and all(found[control] == found["own"] for control in CONTROLS)
    with pytest.raises(SelfieLiteError, match="give two or more, not 1"):
        puzzle_accuracy(model, images[:1], visible[:1], masked[:1])
    with pytest.raises(SelfieLiteError):
        puzzle_accuracy(model, images, visible[:2], masked)
