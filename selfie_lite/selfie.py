"""The whole model: an image in, a guess for every hidden patch out (paper, section 2)."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selfie_lite.attention_pooling import AttentionPooling
from selfie_lite.augment import normalize, require_normalized
from selfie_lite.errors import SelfieLiteError, require_choice, require_number, require_type
from selfie_lite.loss import diagonal_targets, masked_patch_logits
from selfie_lite.patch_network import PatchNetwork
from selfie_lite.patches import (
    PatchGrid,
    crop_patches,
    patchify,
    require_masks,
    require_num_masked,
    sample_masks,
    sample_offsets,
)
from selfie_lite.positions import PositionalEmbedding
from selfie_lite.queries import QUERIES, make_query_mlp


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


torch.export.register_dataclass(SelfieOutput, serialized_type_name="selfie_lite.SelfieOutput")


class Selfie(nn.Module):
    """P, positions and A, trained together to pick the right patch for every hidden location.

    Args:
        grid: image and patch size; `PatchGrid(32, 8)` or `PatchGrid(224, 32)` in the paper.
        arch: "resnet50" or "resnet18", see `PatchNetwork`.
        num_masked: M, hidden patches of each image. Default: a quarter (4 of 16, 12 of 49).
        queries: "additive", the paper's v = u + e; "location", "multiplicative", "mlp" or "mask_token", see
            `queries.py`. With "location" only the hidden patches pass through P, and there is no A: `pool` is None.
        pooling: "attention", "mean" or "max", see `AttentionPooling`.
        stem: "small" or "imagenet", see `PatchNetwork`. Default: "small" for patches under 32 pixels.
        factorized: row and column vectors instead of one vector a location. Default: the paper's choice, one vector
            a location for 16 patches, rows and columns for more.
        num_blocks, num_heads, hidden_dim, dropout: of A. Heads and width default to D/32 and 5·D/8, which is
            32 and 640 at D = 1024.
        encoder_positions: add e to the visible patches before A; the public implementations do not.
        gap: pixels by which a patch is smaller than its cell, so that its border does not continue in the next one: in
            training a random crop of the cell, in evaluation its centre. Not enlarged: P sees true pixels.
        norm: "batch" or "group", see `PatchNetwork`.
        tied: one P for the visible and the hidden patches. Otherwise `patch_network`, the P that is exported, sees the
            hidden ones, and `encoder_network`, with the same first weights, the visible ones.

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
        encoder_positions: bool = True,
        gap: int = 0,
        norm: str = "batch",
        tied: bool = True,
    ):
        super().__init__()
        require_type("grid", grid, PatchGrid, " Make one: PatchGrid(32, 8).")
        require_query_form(queries, pooling, encoder_positions, tied)
        require_number("gap", gap, 0, grid.patch_size - 1)
        num_masked = max(1, grid.count // 4) if num_masked is None else num_masked
        require_num_masked(num_masked, grid)
        self.grid, self.num_masked, self.query_form, self.gap = grid, num_masked, queries, gap
        self.encoder_positions, self.tied = encoder_positions, tied
        stem = ("small" if grid.patch_size < 32 else "imagenet") if stem is None else stem
        factorized = grid.count > 16 if factorized is None else factorized
        self.patch_network = PatchNetwork(arch, stem, norm)
        dim = self.patch_network.dim
        self.positions = PositionalEmbedding(grid, dim, factorized)
        num_heads = dim // 32 if num_heads is None else num_heads
        hidden_dim = dim * 5 // 8 if hidden_dim is None else hidden_dim
        self.pool = None
        if queries != "location":
            self.pool = AttentionPooling(dim, num_blocks, num_heads, hidden_dim, dropout, pooling)
        if queries == "mask_token":
            self.mask_token = nn.Parameter(torch.randn(dim) * 0.02)
        if queries == "mlp":
            self.query_mlp = make_query_mlp(dim, hidden_dim)
        if not tied:
            self.encoder_network = PatchNetwork(arch, stem, norm)
            self.encoder_network.load_state_dict(self.patch_network.state_dict())

    @property
    def has_attention(self) -> bool:
        """Whether there are attention weights to show."""
        return self.pool is not None and self.pool.pooling == "attention"

    def forward(
        self,
        images: Tensor,
        visible: Tensor | None = None,
        masked: Tensor | None = None,
        generator: torch.Generator | None = None,
        return_attention: bool = False,
        offsets: Tensor | None = None,
    ) -> SelfieOutput:
        """One step: patches → P → A → queries → logits and loss.

        Args:
            images: (B, 3, H, W), uint8 from 0 to 255, or float already through `augment.normalize`.
            visible, masked: (B, V) and (B, M) int64 locations, given together; drawn with `generator` if not given.
            return_attention: also give the attention weights of every block and head.
            offsets: (B, N, 2) int64, see `crop_patches`; only with a gap. Default: drawn with `generator` in training,
                the centre in evaluation.

        Raises:
            SelfieLiteError: for images or masks of the wrong shape, type or range.
        """
        patches = patchify(self.prepare(images), self.grid)  # (B, N, 3, S, S)
        visible, masked = self.prepare_masks(visible, masked, len(images), generator, images.device)
        if self.gap:
            if offsets is None and self.training:
                offsets = sample_offsets(len(images), self.grid, self.gap, generator, images.device)
            patches = crop_patches(patches, self.gap, offsets)
        context, candidates = self.embed(patches, visible, masked)  # (B, V, D), (B, M, D)
        queries, attention = self.query(context, visible, masked, return_attention)  # (B, M, D)
        logits = masked_patch_logits(queries, candidates)  # (B, M, M)
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

    def embed(self, patches: Tensor, visible: Tensor, masked: Tensor) -> tuple[Tensor | None, Tensor]:
        """Every patch that is needed goes through P once: h of the visible patches (B, V, D), or None where no query
        looks at them, and of the masked ones (B, M, D)."""
        if self.query_form == "location":
            return None, self.patch_network(take(patches, masked))
        if not self.tied:
            return self.encoder_network(take(patches, visible)), self.patch_network(take(patches, masked))
        features = self.patch_network(patches)  # (B, N, D)
        return take(features, visible), take(features, masked)

    def make_queries(
        self, features: Tensor, visible: Tensor, masked: Tensor, return_attention: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """v for every masked location, from the visible features alone.

        Args:
            features: (B, N, D) float; only those at `visible` are read. visible: (B, V), masked: (B, M) int64.

        Returns:
            queries (B, M, D), and the attention weights of `SelfieOutput` or None.
        """
        return self.query(take(features, visible), visible, masked, return_attention)

    def query(
        self, context: Tensor | None, visible: Tensor, masked: Tensor, return_attention: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """As `make_queries`, from the features of the visible patches (B, V, D)."""
        e = self.positions()  # (N, D), read by F.embedding: e[visible] adds up its gradient in another order each time
        if context is not None and self.encoder_positions:
            context = context + F.embedding(visible, e)  # (B, V, D)
        return QUERIES[self.query_form](self, context, F.embedding(masked, e), return_attention)

    def prepare(self, images: Tensor) -> Tensor:
        """Check the images; uint8 ones are normalised, float ones are taken as they are."""
        require_type("images", images, Tensor, " Make it one: torch.as_tensor(images).")
        if images.ndim != 4 or images.shape[1] != 3:
            raise SelfieLiteError(
                f"images must have shape (batch, 3, height, width), RGB, but have {tuple(images.shape)}. "
                "Grey images: images.expand(-1, 3, -1, -1)."
            )
        if len(images) == 0:
            raise SelfieLiteError("the batch is empty: images have shape " + f"{tuple(images.shape)}.")
        if images.dtype == torch.uint8:
            return normalize(images)
        require_normalized(images)
        return images

    def prepare_masks(
        self,
        visible: Tensor | None,
        masked: Tensor | None,
        batch_size: int,
        generator: torch.Generator | None,
        device: torch.device,
    ) -> tuple[Tensor, Tensor]:
        """Draw masks where none were given; refuse given ones that do not fit the grid or overlap."""
        if visible is None and masked is None:
            return sample_masks(batch_size, self.grid, self.num_masked, generator, device)
        if visible is None or masked is None:
            raise SelfieLiteError("give visible and masked together, or neither to have them drawn.")
        require_masks(visible, masked, batch_size, self.grid)
        return visible.to(device), masked.to(device)


def require_query_form(queries: str, pooling: str, encoder_positions: bool, tied: bool) -> None:
    """Raise SelfieLiteError for a form of query that is unknown, or settings that it would leave without effect."""
    require_choice("queries", queries, QUERIES)
    require_type("encoder_positions", encoder_positions, bool)
    require_type("tied", tied, bool)
    if queries == "mask_token" and pooling != "attention":
        raise SelfieLiteError(f'queries="mask_token" needs pooling="attention", not "{pooling}".')
    if queries == "location" and (pooling, encoder_positions, tied) != ("attention", True, True):
        raise SelfieLiteError(
            'queries="location" look at no visible patch: leave pooling, encoder_positions and tied as they are.'
        )


def take(values: Tensor, locations: Tensor) -> Tensor:
    """values (B, N, …), features or patches, at locations (B, K) → (B, K, …)."""
    index = locations.view(*locations.shape, *[1] * (values.ndim - 2))
    return values.gather(1, index.expand(-1, -1, *values.shape[2:]))
