"""Cutting, joining and hiding patches, against explicit slices and counts."""

import itertools

import pytest
import torch

from selfie_lite import PatchGrid, SelfieLiteError, patchify, sample_masks, unpatchify

SMALL, LARGE = PatchGrid(32, 8), PatchGrid(224, 32)  # the paper's two geometries
GRIDS = pytest.mark.parametrize("grid", [SMALL, LARGE], ids=["32/8", "224/32"])
DTYPES = [
    torch.uint8,
    torch.int16,
    torch.int64,
    torch.float16,
    torch.bfloat16,
    torch.float32,
    torch.float64,
    torch.bool,
]


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def chi_square_limit(freedom):
    """Exceeded by chance once in a thousand (Wilson and Hilferty's approximation)."""
    return freedom * (1 - 2 / (9 * freedom) + 3.09 * (2 / (9 * freedom)) ** 0.5) ** 3


def test_side_and_count():
    assert (SMALL.side, SMALL.count) == (4, 16)
    assert (LARGE.side, LARGE.count) == (7, 49)


@GRIDS
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_patches_are_slices_and_unpatchify_is_exact(grid, dtype):
    images = torch.randint(0, 256, (3, 3, grid.image_size, grid.image_size), generator=seeded()).to(dtype)
    patches = patchify(images, grid)
    assert patches.dtype == dtype
    assert patches.shape == (3, grid.count, 3, grid.patch_size, grid.patch_size)
    s = grid.patch_size
    for row, column in itertools.product(range(grid.side), repeat=2):
        cut = images[:, :, row * s : (row + 1) * s, column * s : (column + 1) * s]
        assert torch.equal(patches[:, row * grid.side + column], cut)
    joined = unpatchify(patches, grid)
    assert joined.dtype == dtype
    assert torch.equal(joined, images)


def test_any_number_of_channels():
    images = torch.rand(2, 5, 32, 32)
    assert torch.equal(unpatchify(patchify(images, SMALL), SMALL), images)


def test_the_papers_example():
    """3×3 patches numbered 1 to 9: 1, 2, 5, 6, 7, 9 stay visible; 3, 4, 8 are masked."""
    grid = PatchGrid(6, 2)
    image = torch.tensor(
        [
            [1, 1, 2, 2, 3, 3],
            [1, 1, 2, 2, 3, 3],
            [4, 4, 5, 5, 6, 6],
            [4, 4, 5, 5, 6, 6],
            [7, 7, 8, 8, 9, 9],
            [7, 7, 8, 8, 9, 9],
        ]
    )
    patches = patchify(image[None, None], grid)[0, :, 0]
    assert torch.equal(patches, torch.arange(1, 10)[:, None, None].expand(9, 2, 2))
    assert torch.equal(patches[[2, 3, 7]].unique(), torch.tensor([3, 4, 8]))
    assert torch.equal(patches[[0, 1, 4, 5, 6, 8]].unique(), torch.tensor([1, 2, 5, 6, 7, 9]))
    assert torch.equal(patches[2], image[0:2, 4:6])
    assert torch.equal(patches[3], image[2:4, 0:2])
    assert torch.equal(patches[7], image[4:6, 2:4])


@GRIDS
def test_masks_are_disjoint_complete_and_sorted(grid):
    num_masked = grid.count // 4
    visible, masked = sample_masks(200, grid, num_masked, generator=seeded())
    assert visible.dtype == masked.dtype == torch.int64
    assert visible.shape == (200, grid.count - num_masked) and masked.shape == (200, num_masked)
    for v, m in zip(visible.tolist(), masked.tolist(), strict=True):
        assert sorted(v + m) == list(range(grid.count))
        assert v == sorted(v) and m == sorted(m)
    assert len({tuple(m) for m in masked.tolist()}) > 150  # every image has its own


@GRIDS
def test_one_generator_state_gives_one_set_of_masks(grid):
    first = sample_masks(50, grid, 4, generator=seeded(7))
    again = sample_masks(50, grid, 4, generator=seeded(7))
    other = sample_masks(50, grid, 4, generator=seeded(8))
    assert torch.equal(first[0], again[0]) and torch.equal(first[1], again[1])
    assert not torch.equal(first[1], other[1])
    generator = seeded(7)
    torch.testing.assert_close(sample_masks(50, grid, 4, generator)[1], first[1])
    assert not torch.equal(sample_masks(50, grid, 4, generator)[1], first[1])  # it moves on


def test_global_random_state():
    before = torch.get_rng_state()
    sample_masks(50, SMALL, 4, generator=seeded())
    assert torch.equal(torch.get_rng_state(), before)  # untouched, with a generator
    torch.manual_seed(5)
    first = sample_masks(50, SMALL, 4)
    torch.manual_seed(5)
    assert torch.equal(sample_masks(50, SMALL, 4)[1], first[1])  # the source, without one


@GRIDS
def test_every_location_is_equally_likely(grid):
    draws, num_masked = 100_000, grid.count // 4
    _, masked = sample_masks(draws, grid, num_masked, generator=seeded())
    counts = masked.flatten().bincount(minlength=grid.count).double()
    p = num_masked / grid.count
    # Drawn without replacement: the counts spread a little less than independent ones, by (1 - p)·N/(N - 1).
    chi_square = ((counts - draws * p) ** 2).sum() / (draws * p * (1 - p)) * (grid.count - 1) / grid.count
    assert chi_square < chi_square_limit(grid.count - 1)
    assert chi_square > grid.count / 5  # and not spread evenly on purpose


@pytest.mark.parametrize("num_masked", [1, 2, 3, 8])
def test_every_set_is_equally_likely(num_masked):
    draws, grid = 100_000, PatchGrid(6, 2)
    _, masked = sample_masks(draws, grid, num_masked, generator=seeded())
    sets = list(itertools.combinations(range(grid.count), num_masked))
    found, counts = masked.unique(dim=0, return_counts=True)
    assert [tuple(row) for row in found.tolist()] == sets
    expected = draws / len(sets)
    assert ((counts - expected) ** 2 / expected).sum() < chi_square_limit(len(sets) - 1)


def test_neighbouring_images_are_independent():
    _, masked = sample_masks(100_000, PatchGrid(6, 2), 1, generator=seeded())
    pairs = (masked[0::2, 0] * 9 + masked[1::2, 0]).bincount(minlength=81)
    expected = 50_000 / 81
    assert ((pairs - expected) ** 2 / expected).sum() < chi_square_limit(80)


@pytest.mark.parametrize(
    "image_size, patch_size, message",
    [
        (30, 8, "30 cannot be cut into patches of 8 pixels: 6 are left over.*to 24 or 32 pixels"),
        (32, 0, "patch_size must lie between 1 and image_size .32., but is 0"),
        (32, 64, "patch_size must lie between 1 and image_size .32., but is 64"),
    ],
)
def test_sizes_that_do_not_fit(image_size, patch_size, message):
    with pytest.raises(SelfieLiteError, match=message):
        PatchGrid(image_size, patch_size)


@pytest.mark.parametrize("num_masked", [-1, 0, 16, 17])
def test_nothing_or_everything_masked(num_masked):
    with pytest.raises(SelfieLiteError, match=f"num_masked must lie between 1 and 15.*but is {num_masked}"):
        sample_masks(2, SMALL, num_masked)


@pytest.mark.parametrize("shape", [(3, 32, 32), (2, 3, 32, 30), (2, 3, 64, 64)])
def test_images_of_another_shape(shape):
    with pytest.raises(SelfieLiteError, match=r"\(batch, channels, 32, 32\)"):
        patchify(torch.zeros(shape), SMALL)


@pytest.mark.parametrize("shape", [(2, 15, 3, 8, 8), (2, 16, 3, 8, 4), (16, 3, 8, 8)])
def test_patches_of_another_shape(shape):
    with pytest.raises(SelfieLiteError, match=r"\(batch, 16, channels, 8, 8\)"):
        unpatchify(torch.zeros(shape), SMALL)
