"""v, the query for a hidden location: the paper's form, and others that say more or less (paper, section 2.1).

Every form gets the model, a `Selfie`; the context, the features of the visible patches with their positions (B, V, D);
and e, the vectors of the hidden locations (B, M, D). It gives v (B, M, D), to be compared with the hidden patches by a
dot product, and the attention weights, if asked for. Before training v has a length of 1 in all of them (additive: √2),
so that no form begins far from chance.
"""

from collections.abc import Callable
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from selfie_lite.errors import SelfieLiteError

Query = tuple[Tensor, Tensor | None]  # v (B, M, D), attention or None


def summary(model: Any, context: Tensor, return_attention: bool) -> Query:
    """u as (B, 1, D), and the attention weights. A mean or a maximum is brought to length 1, with which attention
    pooling starts: P's own length would drown e."""
    u, _, attention = model.pool.encode(context, return_attention=return_attention)
    return (u if model.has_attention else F.normalize(u, dim=1))[:, None], attention


def additive(model: Any, context: Tensor, e: Tensor, return_attention: bool = False) -> Query:
    """v = u + e, the paper's."""
    u, attention = summary(model, context, return_attention)
    return u + e, attention  # (B, 1, D) + (B, M, D)


def location(model: Any, context: None, e: Tensor, return_attention: bool = False) -> Query:
    """v = e: where a patch belongs, from the patch alone. No visible patch is looked at, so there is no A."""
    if return_attention:
        raise SelfieLiteError('queries="location" look at no visible patch: there is no attention to show.')
    return e, None


def multiplicative(model: Any, context: Tensor, e: Tensor, return_attention: bool = False) -> Query:
    """v = √D · u ⊙ e: context and location meet in every dimension. u and e start with length 1; √D makes that of v."""
    u, attention = summary(model, context, return_attention)
    return u * e * e.shape[-1] ** 0.5, attention


def mlp(model: Any, context: Tensor, e: Tensor, return_attention: bool = False) -> Query:
    """v = MLP(u + e): context and location meet in a hidden layer."""
    u, attention = summary(model, context, return_attention)
    return model.query_mlp(u + e), attention


def mask_token(model: Any, context: Tensor, e: Tensor, return_attention: bool = False) -> Query:
    """v = what A gives for a learned mask token, e added, that sees the visible patches: BERT's way."""
    _, v, attention = model.pool.encode(context, model.mask_token + e, return_attention)
    return v, attention


QUERIES: dict[str, Callable[..., Query]] = {
    form.__name__: form for form in (additive, location, multiplicative, mlp, mask_token)
}


def make_query_mlp(dim: int, hidden_dim: int) -> nn.Sequential:
    """The MLP of `mlp`: (…, D) → (…, D), of length 1 before training, as u and e have. Without the first normalisation
    its input, entries of about 1/√D, would drown in the biases."""
    norm = nn.LayerNorm(dim)
    nn.init.constant_(norm.weight, dim**-0.5)
    return nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, hidden_dim), nn.GELU(), nn.Linear(hidden_dim, dim), norm)
