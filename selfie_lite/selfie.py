"""The whole model: an image in, a guess for every hidden patch out (paper, section 2)."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selfie_lite.attention_pooling import AttentionPooling
from selfie_lite.augment import normalize
from selfie_lite.errors import SelfieLiteError, require_choice
from selfie_lite.loss import diagonal_targets, masked_patch_logits
from selfie_lite.patch_network import PatchNetwork
from selfie_lite.patches import PatchGrid, patchify, sample_masks
from selfie_lite.positions import PositionalEmbedding


@dataclass
class SelfieOutput:
    """What one pass gives, for a batch of B images with V visible and M masked patches each."""

    loss: Tensor  # scalar, nats; guessing gives ln M
    accuracy: Tensor  # scalar, 0 to 1: the part of all B·M choices that is right; guessing gives 1/M
    logits: Tensor  # (B, M, M): row = masked location, column = candidate, right ones on the diagonal
    visible: Tensor  # (B, V) int64, locations
    masked: Tensor  # (B, M) int64, locations
    queries: Tensor  # (B, M, D): v
    attention: Tensor | None = None  # (B, blocks, heads, 1 or 1 + M, V): from u0 (and each mask token) to the visible


class Selfie(nn.Module):
    """P, positions and A, trained together to pick the right patch for every hidden location.

    Args:
        grid: image and patch size; `PatchGrid(32, 8)` or `PatchGrid(224, 32)` in the paper.
        arch: "resnet50" or "resnet18", see `PatchNetwork`.
        num_masked: M, hidden patches of each image. Default: a quarter (4 of 16, 12 of 49).
        queries: "additive", the paper's v = u + e, or "mask_token", BERT's way: a learned token for each hidden
            location goes through the Transformer beside the visible patches, and what comes out is v.
        pooling: "attention", "mean" or "max", see `AttentionPooling`.
        stem: "small" or "imagenet", see `PatchNetwork`. Default: "small" for patches under 32 pixels.
        factorized: row and column vectors instead of one vector a location. Default: the paper's choice, one vector
            a location for 16 patches, rows and columns for more.
        num_blocks, num_heads, hidden_dim, dropout: of A. Heads and width default to D/32 and 5·D/8, which is
            32 and 640 at D = 1024.

    Raises:
        SelfieLiteError: for a name or number that does not fit, saying which would.
    """

    def __init__(
        self,
        grid: PatchGrid,
        arch: str = "resnet50",
        num_masked: int | None = None,
        queries: str = "additive",
        pooling: str = "attention",
        stem: str | None = None,
        factorized: bool | None = None,
        num_blocks: int = 3,
        num_heads: int | None = None,
        hidden_dim: int | None = None,
        dropout: float = 0.1,
    ):
        super().__init__()
        require_choice("queries", queries, ["additive", "mask_token"])
        if queries == "mask_token" and pooling != "attention":
            raise SelfieLiteError(f'queries="mask_token" needs pooling="attention", not "{pooling}".')
        num_masked = grid.count // 4 if num_masked is None else num_masked
        sample_masks(1, grid, num_masked, torch.Generator())  # refuses a num_masked that cannot be
        self.grid, self.num_masked, self.query_form = grid, num_masked, queries
        stem = stem or ("small" if grid.patch_size < 32 else "imagenet")
        factorized = grid.count > 16 if factorized is None else factorized
        self.patch_network = PatchNetwork(arch, stem)
        dim = self.patch_network.dim
        self.positions = PositionalEmbedding(grid, dim, factorized)
        self.pool = AttentionPooling(
            dim, num_blocks, num_heads or dim // 32, hidden_dim or dim * 5 // 8, dropout, pooling
        )
        if queries == "mask_token":
            self.mask_token = nn.Parameter(torch.randn(dim) * 0.02)

    def forward(
        self,
        images: Tensor,
        visible: Tensor | None = None,
        masked: Tensor | None = None,
        generator: torch.Generator | None = None,
        return_attention: bool = False,
    ) -> SelfieOutput:
        """One step: patches → P → A → queries → logits and loss.

        Args:
            images: (B, 3, H, W), uint8 from 0 to 255, or float already through `augment.normalize`.
            visible, masked: (B, V) and (B, M) int64 locations, given together; drawn with `generator` if not given.
            return_attention: also give the attention weights of every block and head.

        Raises:
            SelfieLiteError: for images or masks of the wrong shape, type or range.
        """
        patches = patchify(self.prepare(images), self.grid)  # (B, N, 3, S, S)
        visible, masked = self.prepare_masks(visible, masked, len(images), generator, images.device)
        features = self.patch_network(patches)  # (B, N, D): every patch once
        queries, attention = self.make_queries(features, visible, masked, return_attention)  # (B, M, D)
        logits = masked_patch_logits(queries, take(features, masked))  # (B, M, M)
        targets = diagonal_targets(logits)
        flat = logits.flatten(0, 1)
        return SelfieOutput(
            loss=F.cross_entropy(flat, targets),
            accuracy=(flat.detach().argmax(dim=1) == targets).float().mean(),
            logits=logits,
            visible=visible,
            masked=masked,
            queries=queries,
            attention=attention,
        )

    def make_queries(
        self, features: Tensor, visible: Tensor, masked: Tensor, return_attention: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """v for every masked location, from the visible features alone.

        Args:
            features: (B, N, D) float; only those at `visible` are read. visible: (B, V), masked: (B, M) int64.

        Returns:
            queries (B, M, D), and the attention weights of `SelfieOutput` or None.
        """
        e = self.positions()  # (N, D), read by F.embedding: e[visible] adds up its gradient in another order each time
        context = take(features, visible) + F.embedding(visible, e)  # (B, V, D)
        if self.query_form == "additive":
            u, _, attention = self.pool.encode(context, return_attention=return_attention)
            return u[:, None] + F.embedding(masked, e), attention  # (B, 1, D) + (B, M, D)
        mask_tokens = self.mask_token + F.embedding(masked, e)  # (B, M, D)
        _, v, attention = self.pool.encode(context, mask_tokens, return_attention)
        return v, attention

    def prepare(self, images: Tensor) -> Tensor:
        """Check the channels; uint8 images are normalised, float images are taken as they are."""
        if images.ndim != 4 or images.shape[1] != 3:
            raise SelfieLiteError(
                f"images must have shape (batch, 3, height, width), RGB, but have {tuple(images.shape)}. "
                "Grey images: images.expand(-1, 3, -1, -1)."
            )
        if images.dtype == torch.uint8:
            return normalize(images)
        if not images.is_floating_point():
            raise SelfieLiteError(f"images must be uint8, 0 to 255, or normalised float, but are {images.dtype}.")
        return images

    def prepare_masks(self, visible, masked, batch_size, generator, device):
        """Draw masks where none were given; refuse given ones that do not fit the grid or overlap."""
        if visible is None and masked is None:
            return sample_masks(batch_size, self.grid, self.num_masked, generator, device)
        if visible is None or masked is None:
            raise SelfieLiteError("give visible and masked together, or neither to have them drawn.")
        for name, locations in (("visible", visible), ("masked", masked)):
            if locations.dtype != torch.int64 or locations.ndim != 2 or len(locations) != batch_size:
                raise SelfieLiteError(
                    f"{name} must be int64 of shape ({batch_size}, locations), one row an image, "
                    f"but is {locations.dtype} of shape {tuple(locations.shape)}."
                )
            if locations.shape[1] == 0:
                raise SelfieLiteError(f"{name} is empty: something must be hidden, and something must stay visible.")
        if visible.device.type == masked.device.type == "cpu":  # elsewhere the look would make the device wait
            both = torch.cat([visible, masked], dim=1).sort(dim=1).values
            if both.min() < 0 or both.max() >= self.grid.count:
                raise SelfieLiteError(
                    f"locations run from 0 to {self.grid.count - 1}, "
                    f"but {int(both.min())} to {int(both.max())} were given."
                )
            if (both[:, 1:] == both[:, :-1]).any():
                raise SelfieLiteError("a location stands twice in one image's visible and masked locations.")
        return visible.to(device), masked.to(device)


def take(features: Tensor, locations: Tensor) -> Tensor:
    """features (B, N, D) at locations (B, K) → (B, K, D)."""
    return features.gather(1, locations[..., None].expand(-1, -1, features.shape[-1]))
