"""Which labels may be used: balanced, nested, fixed by the seed; too few are told by the name of their class."""

import pytest
import torch

from selfie_lite import SelfieLiteError
from selfie_lite.training.labels import labelled_subset

CHOSEN = [70, 118, 156, 157, 364, 365, 481, 512, 849, 893]  # of ten classes, 0.05 of 1,000 labels, seed 0


def test_labelled_subsets_are_balanced_nested_and_fixed_by_the_seed():
    labels = torch.arange(1000) % 10
    labels[labels == 9] = 0  # a class with twice as many
    earlier = [set(), set()]
    for fraction in (0.05, 0.08, 0.2, 1.0):
        parts = labelled_subset(labels, fraction, seed=1)
        train, choose = (set(part.tolist()) for part in parts)
        assert not train & choose and earlier[0] <= train and earlier[1] <= choose
        assert torch.cat(parts).unique().numel() == len(train) + len(choose)
        counts = labels[torch.cat(parts)].bincount()
        assert counts.tolist() == [round(200 * fraction)] + 8 * [round(100 * fraction)]
        assert labels[parts[1]].bincount().min() >= 1
        earlier = [train, choose]
    assert earlier[0] | earlier[1] == set(range(1000))
    assert len(earlier[1]) == 100
    same, other = labelled_subset(labels, 0.2, seed=1), labelled_subset(labels, 0.2, seed=2)
    assert torch.equal(labelled_subset(labels, 0.2, seed=1)[0], same[0]) and not torch.equal(same[0], other[0])
    half = labelled_subset(labels, 0.2, validation=0.5)
    assert abs(len(half[0]) - len(half[1])) <= 10


def test_the_part_to_choose_on_is_as_large_as_it_was_asked_to_be():
    labels = torch.arange(2000) % 2
    for validation in (0.05, 0.1, 0.25, 0.3, 0.4, 0.45, 0.5, 1 / 3):
        train, choose = labelled_subset(labels, 1.0, validation)
        assert len(choose) == pytest.approx(2000 * validation, abs=2) and len(train) + len(choose) == 2000
        smaller = labelled_subset(labels, 0.1, validation)
        assert set(smaller[0].tolist()) <= set(train.tolist()) and set(smaller[1].tolist()) <= set(choose.tolist())
    _, choose = labelled_subset(torch.arange(1000) % 10, 0.05, 0.1, seed=0)
    assert choose.tolist() == CHOSEN, "as every recorded result has it"


@pytest.mark.parametrize(
    ("fraction", "message"),
    [
        (0.0, "above 0 and up to 1, but is 0.0"),
        (1.01, "but is 1.01"),
        (float("nan"), "but is nan"),
        (True, "but is True"),
        ("0.5", "but is '0.5'"),
        (0.001, "0.001 of the 100 labels of class 0 is 0: too few.*at least 0.02.*So have 9 more: 1, 2"),
    ],
)
def test_fractions_that_cannot_be(fraction, message):
    with pytest.raises(SelfieLiteError, match=message):
        labelled_subset(torch.arange(1000) % 10, fraction)


def test_one_class_is_nothing_to_learn():
    with pytest.raises(SelfieLiteError, match="two classes or more"):
        labelled_subset(torch.zeros(10, dtype=torch.int64), 1.0)


def test_a_class_with_too_few_images_is_named_with_a_way_out():
    labels = torch.tensor([0, 0, 0, 1, 2, 2])
    with pytest.raises(SelfieLiteError, match="class emu has 1 image.*Bring more images of it, or move its folder"):
        labelled_subset(labels, 1.0, classes=["cat", "emu", "dog"])
    with pytest.raises(SelfieLiteError, match="0.5 of the 2 labels of class dog is 1.*Use at least 1[.]"):
        labelled_subset(labels[labels != 1], 0.5, classes=["cat", "emu", "dog"])


def test_labels_of_other_kinds_work_or_are_told():
    expected = labelled_subset(torch.arange(40) % 2, 0.5)
    for same in ([i % 2 for i in range(40)], (torch.arange(40) % 2).numpy(), (torch.arange(40) % 2).to(torch.int32)):
        assert all(torch.equal(*parts) for parts in zip(expected, labelled_subset(same, 0.5), strict=True))
    for wrong in (torch.rand(4), torch.zeros(4, 2, dtype=torch.int64), ["cat", "dog"], None, [True, False]):
        with pytest.raises(SelfieLiteError, match="one whole number an image"):
            labelled_subset(wrong, 1.0)
    for wrong in (0, 0.51, -1, float("nan"), "0.1"):
        with pytest.raises(SelfieLiteError, match="above 0 and up to 0.5, but is"):
            labelled_subset(torch.arange(40) % 2, 1.0, validation=wrong)
