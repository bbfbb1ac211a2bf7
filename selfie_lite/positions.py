"""One learned vector for every location of the grid (paper, section 2.2)."""

import torch
from torch import Tensor, nn

from selfie_lite.errors import require_number, require_type
from selfie_lite.patches import PatchGrid


class PositionalEmbedding(nn.Module):
    """e: a vector for each of the N locations.

    Args:
        grid: the patch grid, G × G = N locations.
        dim: D, length of each vector.
        factorized: if true, G row vectors and G column vectors, e[row, column] = row vector + column vector:
            14·D parameters for a 7×7 grid, where one vector a location takes 49·D.
        std: standard deviation of the initial entries of e. Default: 1/√D, so that each vector has length about 1.

    Raises:
        SelfieLiteError: for an argument of another kind, or a number that cannot be.
    """

    def __init__(self, grid: PatchGrid, dim: int, factorized: bool = True, std: float | None = None):
        super().__init__()
        require_type("grid", grid, PatchGrid, " Make one: PatchGrid(32, 8).")
        require_number("dim", dim, 1)
        require_type("factorized", factorized, bool)
        self.grid, self.dim, self.factorized = grid, dim, factorized
        std = dim**-0.5 if std is None else std
        require_number("std", std, 0, whole=False)
        if factorized:
            self.row = nn.Parameter(torch.randn(grid.side, dim) * std / 2**0.5)
            self.column = nn.Parameter(torch.randn(grid.side, dim) * std / 2**0.5)
        else:
            self.location = nn.Parameter(torch.randn(grid.count, dim) * std)

    def forward(self) -> Tensor:
        """e: (N, D), in row-major order."""
        if not self.factorized:
            return self.location
        return (self.row[:, None] + self.column[None, :]).flatten(0, 1)  # (G, 1, D) + (1, G, D) → (G·G, D)
