"""Pick the right patch among the hidden ones: logits, and the loss over all hidden locations at once (section 2.1)."""

import torch
import torch.nn.functional as F
from torch import Tensor

from selfie_lite.errors import SelfieLiteError, require_number, require_type


def masked_patch_logits(queries: Tensor, features: Tensor) -> Tensor:
    """How well every candidate patch fits every masked location: plain dot products.

    Args:
        queries: (B, M, D) float, v: one vector a masked location.
        features: (B, M, D) float, h: P of the masked patches, in the same order.

    Returns:
        (B, M, M): logits[b, i, k] = queries[b, i] · features[b, k]. The right patch is on the diagonal.

    Raises:
        SelfieLiteError: if the two shapes or types differ, or are not those.
    """
    require_type("queries", queries, Tensor, " Make it one: torch.as_tensor(queries).")
    require_type("features", features, Tensor, " Make it one: torch.as_tensor(features).")
    if queries.ndim != 3 or queries.shape != features.shape:
        raise SelfieLiteError(
            "queries and features of the masked patches must have one shape (batch, masked, dim), "
            f"but have {tuple(queries.shape)} and {tuple(features.shape)}."
        )
    if not (queries.is_floating_point() and features.is_floating_point()):
        raise SelfieLiteError(f"queries and features must be float, but are {queries.dtype} and {features.dtype}.")
    return torch.einsum("b i d, b k d -> b i k", queries, features)


def multi_location_loss(queries: Tensor, features: Tensor) -> Tensor:
    """The paper's efficient loss: mean cross-entropy of all B·M choices against the diagonal.

    Args and errors as in `masked_patch_logits`. Returns a scalar, in nats; guessing gives ln M.
    """
    logits = masked_patch_logits(queries, features)
    if logits.numel() == 0:
        raise SelfieLiteError(f"there is no hidden patch to place: queries have shape {tuple(queries.shape)}.")
    return F.cross_entropy(logits.flatten(0, 1), diagonal_targets(logits))


def diagonal_targets(logits: Tensor) -> Tensor:
    """(B·M,) int64: the right candidate of every row of logits (B, M, M)."""
    return torch.arange(logits.shape[1], device=logits.device).repeat(logits.shape[0])


def one_location_loss(query: Tensor, features: Tensor, target: int) -> Tensor:
    """The plain way, one masked location at a time: kept for teaching, and as the oracle of the tests.

    Args:
        query: (B, D) float, v of one masked location.
        features: (B, M, D) float, the M candidates.
        target: which candidate is right, 0 to M - 1.

    Returns:
        Scalar: mean over the batch of -log softmax(query · features)[target], in nats.

    Raises:
        SelfieLiteError: for other shapes, or a target that is no candidate.
    """
    require_type("query", query, Tensor)
    require_type("features", features, Tensor)
    if query.ndim != 2 or features.ndim != 3 or (len(query), query.shape[1]) != (len(features), features.shape[2]):
        raise SelfieLiteError(
            "query and features must have shapes (batch, dim) and (batch, masked, dim), "
            f"but have {tuple(query.shape)} and {tuple(features.shape)}."
        )
    require_number("target", target, 0, features.shape[1] - 1)
    losses = []
    for v, candidates in zip(query, features, strict=True):
        logits = torch.stack([v @ candidate for candidate in candidates])  # (M,)
        losses.append(torch.logsumexp(logits, dim=0) - logits[target])
    return torch.stack(losses).mean()
