"""One vector a location, from rows and columns or each on its own."""

import pytest
import torch

from selfie_lite import PatchGrid, PositionalEmbedding

SMALL, LARGE = PatchGrid(32, 8), PatchGrid(224, 32)


@pytest.mark.parametrize(
    "grid, factorized, vectors", [(SMALL, False, 16), (SMALL, True, 8), (LARGE, False, 49), (LARGE, True, 14)]
)
def test_number_of_parameters(grid, factorized, vectors):
    positions = PositionalEmbedding(grid, 20, factorized)
    assert sum(parameter.numel() for parameter in positions.parameters()) == vectors * 20
    assert positions().shape == (grid.count, 20)


@pytest.mark.parametrize("grid", [SMALL, LARGE])
def test_row_plus_column(grid):
    positions = PositionalEmbedding(grid, 20)
    e = positions()
    for row in range(grid.side):
        for column in range(grid.side):
            assert torch.equal(e[row * grid.side + column], positions.row[row] + positions.column[column])


def test_one_vector_a_location():
    positions = PositionalEmbedding(SMALL, 20, factorized=False)
    (parameter,) = positions.parameters()
    assert torch.equal(positions(), parameter)


@pytest.mark.parametrize("factorized", [True, False])
def test_each_location_trains_its_own_vectors(factorized):
    positions = PositionalEmbedding(SMALL, 20, factorized)
    positions()[6].sum().backward()  # row 1, column 2
    if factorized:
        assert positions.row.grad.any(dim=1).tolist() == [False, True, False, False]
        assert positions.column.grad.any(dim=1).tolist() == [False, False, True, False]
    else:
        assert positions.location.grad.any(dim=1).nonzero().tolist() == [[6]]


@pytest.mark.parametrize("factorized", [True, False])
def test_vectors_start_with_length_one(factorized):
    torch.manual_seed(0)
    e = PositionalEmbedding(LARGE, 1024, factorized)()
    torch.testing.assert_close(e.norm(dim=1), torch.ones(49), rtol=0, atol=0.15)
    e = PositionalEmbedding(LARGE, 1024, factorized, std=0.5)()
    torch.testing.assert_close(e.std(), torch.tensor(0.5), rtol=0.1, atol=0)
