"""Crops, flips and normalisation: every image is traced back to the crop it came from."""

import itertools

import pytest
import torch
import torch.nn.functional as F

from selfie_lite import SelfieLiteError, augment, denormalize, normalize
from selfie_lite.augment import MEAN, STD, pad_crop_flip, random_resized_crop_flip


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def random_images(*shape, seed=0):
    return torch.randint(1, 256, shape, generator=seeded(seed)).to(torch.uint8)  # no pixel is black


def crops_by_hand(images, padding, mode):
    """All (row, column, mirrored) crops of all images, as {key: (B, C, H, W)}."""
    height, width = images.shape[-2:]
    padded = F.pad(images.double(), [padding] * 4, mode=mode).to(images.dtype)
    crops = {}
    for y, x in itertools.product(range(2 * padding + 1), repeat=2):
        crop = padded[:, :, y : y + height, x : x + width]
        crops[y, x, False], crops[y, x, True] = crop, crop.flip(-1)
    return crops


@pytest.mark.parametrize("padding, height, width", [(4, 12, 10), (2, 6, 9)])
@pytest.mark.parametrize("padding_mode, mode", [("zero", "constant"), ("reflect", "reflect")])
def test_pad_crop_flip_is_one_crop_of_each_image(padding_mode, mode, padding, height, width):
    images = random_images(2000, 3, height, width)
    result = pad_crop_flip(images, padding, padding_mode, seeded(1))
    assert result.shape == images.shape and result.dtype == images.dtype and result.is_contiguous()
    found = {k: (crop == result).flatten(1).all(dim=1) for k, crop in crops_by_hand(images, padding, mode).items()}
    assert torch.stack(list(found.values())).sum(dim=0).eq(1).all()  # exactly one crop explains each image
    counts = torch.tensor([found[key].sum() for key in sorted(found)]).double().view(-1, 2)
    offsets, expected = counts.sum(dim=1), 2000 / (2 * padding + 1) ** 2
    assert counts.min() > 0  # every offset occurs, mirrored and not,
    freedom = len(offsets) - 1
    chi_square = ((offsets - expected) ** 2 / expected).sum()
    assert chi_square < freedom + 4 * (2 * freedom) ** 0.5  # equally often,
    assert 900 < counts[:, 1].sum() < 1100  # and half are mirrored


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.float16, torch.float32, torch.float64], ids=str)
def test_pad_crop_flip_keeps_the_type(dtype):
    images = random_images(64, 3, 8, 8)
    result = pad_crop_flip(images.to(dtype), generator=seeded(1))
    assert result.dtype == dtype
    assert torch.equal(result, pad_crop_flip(images, generator=seeded(1)).to(dtype))


def test_default_is_the_papers_black_border_of_four_pixels():
    images = random_images(500, 3, 32, 32)
    result = pad_crop_flip(images, generator=seeded())
    assert torch.equal(result, pad_crop_flip(images, 4, "zero", seeded()))
    black_rows = (result == 0).all(dim=(1, 3)).sum(dim=1)
    assert black_rows.min() == 0 and black_rows.max() == 4


def test_no_padding_only_flips():
    images = random_images(64, 3, 8, 8)
    result = pad_crop_flip(images, padding=0, generator=seeded())
    mirrored = (result == images.flip(-1)).flatten(1).all(dim=1)
    assert torch.equal(result, torch.where(mirrored[:, None, None, None], images.flip(-1), images))
    assert 0 < mirrored.sum() < 64


def test_whole_rectangle_is_the_image_or_its_mirror():
    images = random_images(64, 3, 16, 16)
    result = random_resized_crop_flip(images, scale=(1, 1), ratio=(1, 1), generator=seeded())
    assert result.dtype == torch.uint8
    mirrored = (result == images.flip(-1)).flatten(1).all(dim=1)
    assert torch.equal(result, torch.where(mirrored[:, None, None, None], images.flip(-1), images))
    assert 16 < mirrored.sum() < 48


def test_random_rectangle_read_off_a_ramp():
    """Pixels that say where they come from: channel 0 is the column, channel 1 the row, channel 2 constant."""
    size, batch = 96, 300
    ramp = torch.arange(size).expand(size, size)
    images = torch.stack([ramp * 2, ramp.T * 2, torch.full((size, size), 77)]).to(torch.uint8)
    images = images.expand(batch, 3, size, size)
    result = random_resized_crop_flip(images, scale=(0.2, 0.7), ratio=(0.75, 1.25), generator=seeded())
    assert result[:, 2].eq(77).all()
    column, row = result[:, 0].double() / 2, result[:, 1].double() / 2
    assert (column - column[:, :1]).abs().max() <= 0.5  # an upright rectangle
    assert (row - row[:, :, :1]).abs().max() <= 0.5

    inner = slice(8, -8)  # bilinear interpolation of a ramp is exact, away from the borders
    across = column[:, 40, inner].diff(dim=1).mean(dim=1)  # width of the rectangle over that of the image, signed
    down = row[:, inner, 40].diff(dim=1).mean(dim=1)
    area, ratio = across.abs() * down, across.abs() / down
    assert area.min() > 0.19 and area.max() < 0.71 and area.max() - area.min() > 0.4
    assert ratio.min() > 0.72 and ratio.max() < 1.28 and ratio.max() - ratio.min() > 0.4
    assert (down > 0).all() and 110 < (across < 0).sum() < 190  # mirrored left-right, never upside down
    # The middle of the rectangle: inside the image, and anywhere that leaves the rectangle inside.
    drawn = [area, ratio, across.sign()]
    for values, length in ((column.mean(dim=(1, 2)), across.abs()), (row.mean(dim=(1, 2)), down)):
        place = ((values + 0.5) / size - length / 2) / (1 - length)
        assert place.min() > -0.05 and place.max() < 1.05
        assert (place < 0.25).sum() > 45 and (place > 0.75).sum() > 45
        drawn.append(place)
    assert (torch.stack(drawn).corrcoef() - torch.eye(5)).abs().max() < 0.2  # each is drawn on its own


def test_stretching_is_bilinear():
    """The ramps give away the rectangle; the noise in channel 2 is then interpolated by hand."""
    size = 100
    ramp = torch.arange(size).expand(size, size)
    noise = random_images(size, size)
    images = torch.stack([ramp * 2, ramp.T * 2, noise]).to(torch.uint8)[None].repeat(8, 1, 1, 1)
    side = 0.37**0.5  # of the image's
    for crop in random_resized_crop_flip(images, scale=(0.37, 0.37), ratio=(1, 1), generator=seeded()).double():
        step = side if crop[0, 0, -1] > crop[0, 0, 0] else -side
        pixels = [(y, x) for y in range(10, 90, 7) for x in range(10, 90, 7)]
        differences = []
        for y, x in pixels:
            source_y = crop[1].mean().item() / 2 + (y - 49.5) * side
            source_x = crop[0].mean().item() / 2 + (x - 49.5) * step
            top, left = int(source_y), int(source_x)
            b, r = source_y - top, source_x - left
            above = (1 - r) * noise[top, left] + r * noise[top, left + 1]
            below = (1 - r) * noise[top + 1, left] + r * noise[top + 1, left + 1]
            differences.append(((1 - b) * above + b * below - crop[2, y, x]).abs())
        assert torch.stack(differences).mean() < 4  # of 255; the nearest pixel alone would be about 30 away


@pytest.mark.parametrize("size, by_hand", [(32, pad_crop_flip), (64, pad_crop_flip), (96, random_resized_crop_flip)])
def test_augment_chooses_by_size(size, by_hand):
    images = random_images(8, 3, size, size)
    assert torch.equal(augment(images, seeded(3)), by_hand(images, generator=seeded(3)))


@pytest.mark.parametrize("size", [32, 96])
def test_augment_differs_per_image_and_is_reproducible(size):
    images = random_images(1, 3, size, size).expand(16, -1, -1, -1)
    state = torch.get_rng_state()
    result = augment(images, seeded(1))
    assert torch.equal(torch.get_rng_state(), state)  # the global random state is untouched
    assert result.shape == images.shape and result.dtype == torch.uint8
    assert len(result.unique(dim=0)) >= 12  # of 16 equal images; two may draw the same of 162 crops
    assert torch.equal(augment(images, seeded(1)), result)
    assert not torch.equal(augment(images, seeded(2)), result)
    torch.manual_seed(4)
    first = augment(images)
    torch.manual_seed(4)
    assert torch.equal(augment(images), first)


def test_normalize_and_back_for_every_value():
    images = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).repeat(2, 3, 1, 1)
    normalized = normalize(images)
    assert normalized.dtype == torch.float32
    for channel, value in itertools.product(range(3), [0, 1, 128, 255]):
        expected = (value / 255 - MEAN[channel]) / STD[channel]
        assert normalized[1, channel, value // 16, value % 16].item() == pytest.approx(expected, abs=1e-6)
    back = denormalize(normalized)
    assert back.dtype == torch.uint8
    assert torch.equal(back, images)
    assert torch.equal(denormalize(normalize(images[0])), images[0])  # one image alone


def test_denormalize_clips():
    far = torch.tensor([-100.0, 100.0]).view(2, 1, 1, 1).expand(2, 3, 1, 1)
    assert denormalize(far)[0].eq(0).all() and denormalize(far)[1].eq(255).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.int64, torch.float16], ids=str)
def test_normalize_refuses_other_types(dtype):
    with pytest.raises(SelfieLiteError, match=f"uint8 images, 0 to 255, but these are {dtype}"):
        normalize(torch.zeros(1, 3, 4, 4, dtype=dtype))


def test_unknown_padding_mode():
    with pytest.raises(SelfieLiteError, match="unknown padding_mode 'reflection'. Did you mean 'reflect'"):
        pad_crop_flip(random_images(1, 3, 8, 8), padding_mode="reflection")
