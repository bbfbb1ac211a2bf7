"""A, attention pooling: a Transformer that turns many patch vectors into one (paper, section 2.2)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selfie_lite.errors import SelfieLiteError, require_choice, require_number, require_type


class AttentionBlock(nn.Module):
    """BERT's Transformer block: self-attention, then two fully connected layers with GELU between them; after each,
    dropout, a residual connection and layer normalisation.

    In evaluation it equals `nn.TransformerEncoderLayer(dim, num_heads, hidden_dim, activation="gelu")`.

    Args:
        dim: D, length of a token.
        num_heads: attention heads; must divide `dim`.
        hidden_dim: width between the two fully connected layers.
        dropout: probability, for the attention weights and before each residual connection.

    Raises:
        SelfieLiteError: if `num_heads` does not divide `dim`, or for a number that cannot be.
    """

    def __init__(self, dim: int, num_heads: int, hidden_dim: int, dropout: float = 0.1):
        super().__init__()
        for name, value in (("dim", dim), ("num_heads", num_heads), ("hidden_dim", hidden_dim)):
            require_number(name, value, 1)
        require_number("dropout", dropout, 0, 1, whole=False)
        if dim % num_heads:
            raise SelfieLiteError(f"num_heads must divide dim {dim}, but is {num_heads}.")
        self.num_heads, self.dropout = num_heads, dropout
        self.qkv = nn.Linear(dim, 3 * dim)
        self.project = nn.Linear(dim, dim)
        self.norm1 = nn.LayerNorm(dim)
        self.linear1 = nn.Linear(dim, hidden_dim)
        self.linear2 = nn.Linear(hidden_dim, dim)
        self.norm2 = nn.LayerNorm(dim)

    def forward(
        self, tokens: Tensor, allowed: Tensor | None = None, return_attention: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """
        Args:
            tokens: (B, T, D) float.
            allowed: (T, T) bool, or None for all true: allowed[i, j] says that token i may attend to token j.
            return_attention: also give the attention weights.

        Returns:
            tokens (B, T, D), and attention (B, heads, T, T), whose rows sum to 1, or None if not asked for.
        """
        attended, attention = self.self_attention(tokens, allowed, return_attention)
        tokens = self.norm1(tokens + F.dropout(attended, self.dropout, self.training))
        hidden = self.linear2(F.gelu(self.linear1(tokens)))  # (B, T, D)
        return self.norm2(tokens + F.dropout(hidden, self.dropout, self.training)), attention

    def self_attention(
        self, tokens: Tensor, allowed: Tensor | None = None, return_attention: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """The attention alone, without residual; arguments and results as in `forward`."""
        q, k, v = (x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for x in self.qkv(tokens).chunk(3, dim=-1))
        dropout = self.dropout if self.training else 0.0
        if return_attention:  # softmax(q kᵀ / √d) v, in the open
            scores = q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5  # (B, heads, T, T)
            if allowed is not None:
                scores = scores.masked_fill(~allowed, float("-inf"))
            attention = scores.softmax(dim=-1)
            mixed = F.dropout(attention, dropout, self.training) @ v
        else:  # the same, fused
            attention = None
            mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=allowed, dropout_p=dropout)
        return self.project(mixed.transpose(1, 2).flatten(2)), attention  # (B, heads, T, d) → (B, T, D)


class AttentionPooling(nn.Module):
    """A: pools a set of vectors into one.

    A learned vector u0, the `summary_token`, enters the Transformer together with the vectors; what comes out in
    its place is the summary u. Mean and max are the two limits of attention, for temperature to infinity and to zero.

    Args:
        dim: D. num_blocks, num_heads, hidden_dim, dropout: as in `AttentionBlock`. The defaults are for D = 1024.
        pooling: "attention", the paper's, or "mean" or "max" of the vectors, which have no parameters.

    Raises:
        SelfieLiteError: for an unknown `pooling`, or a number that cannot be.
    """

    def __init__(
        self,
        dim: int,
        num_blocks: int = 3,
        num_heads: int = 32,
        hidden_dim: int = 640,
        dropout: float = 0.1,
        pooling: str = "attention",
    ):
        super().__init__()
        require_choice("pooling", pooling, ["attention", "mean", "max"])
        require_number("dim", dim, 1)
        require_number("num_blocks", num_blocks, 1)
        self.pooling, self.dim = pooling, dim
        if pooling == "attention":
            self.summary_token = nn.Parameter(torch.randn(dim) * 0.02)
            blocks = [AttentionBlock(dim, num_heads, hidden_dim, dropout) for _ in range(num_blocks)]
            self.blocks = nn.ModuleList(blocks)
            # A layer-normalised u has length √D, which would drown a location vector and start the loss far above
            # chance: start with length 1, as the location vectors do.
            nn.init.constant_(blocks[-1].norm2.weight, dim**-0.5)

    def forward(self, features: Tensor) -> Tensor:
        """(B, V, D), the visible vectors with their positions already added → summary u (B, D)."""
        return self.encode(features)[0]

    def encode(
        self, features: Tensor, mask_tokens: Tensor | None = None, return_attention: bool = False
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """As `forward`, and with mask tokens or attention weights.

        A mask token attends to u0, to the visible vectors and to itself; nothing attends to a mask token. So every
        masked location is answered as if it were the only one, and all of them in one pass.

        Args:
            features: (B, V, D) float. mask_tokens: (B, M, D) float, or None.

        Returns:
            summary (B, D); the outputs at the mask tokens (B, M, D) or None; attention
            (B, blocks, heads, 1 + M, V), from u0 and each mask token to the visible vectors, or None. A row sums to
            less than 1: the rest of the weight lies on u0 and on the mask token itself.

        Raises:
            SelfieLiteError: if mask tokens or attention weights are asked of mean or max pooling, or for vectors of
                another shape.
        """
        self._require_vectors("features", features)
        if self.pooling != "attention":
            if mask_tokens is not None or return_attention:
                raise SelfieLiteError(f'only pooling="attention" has mask tokens and weights, not "{self.pooling}".')
            return (features.mean(dim=1) if self.pooling == "mean" else features.amax(dim=1)), None, None

        batch, num_visible, _ = features.shape
        tokens = torch.cat([self.summary_token.expand(batch, 1, -1), features], dim=1)  # (B, 1 + V, D)
        allowed = None
        if mask_tokens is not None:
            self._require_vectors("mask_tokens", mask_tokens)
            tokens = torch.cat([tokens, mask_tokens], dim=1)  # (B, 1 + V + M, D)
            allowed = torch.eye(tokens.shape[1], dtype=torch.bool, device=tokens.device)
            allowed[:, : 1 + num_visible] = True
        attentions = []
        for block in self.blocks:
            tokens, attention = block(tokens, allowed, return_attention)
            attentions.append(attention)
        outputs = tokens[:, 1 + num_visible :] if mask_tokens is not None else None
        if not return_attention:
            return tokens[:, 0], outputs, None
        attention = torch.stack(attentions, dim=1)  # (B, blocks, heads, T, T)
        asking = [0, *range(1 + num_visible, tokens.shape[1])]
        return tokens[:, 0], outputs, attention[..., asking, 1 : 1 + num_visible]

    def _require_vectors(self, name: str, vectors: Tensor) -> None:
        require_type(name, vectors, Tensor, f" Make it one: torch.as_tensor({name}).")
        if (
            vectors.ndim != 3
            or vectors.shape[2] != self.dim
            or vectors.shape[1] == 0
            or not vectors.is_floating_point()
        ):
            raise SelfieLiteError(
                f"{name} must be float of shape (batch, patches, {self.dim}), one patch or more, "
                f"but are {vectors.dtype} of shape {tuple(vectors.shape)}."
            )
