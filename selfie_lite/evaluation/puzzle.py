"""How well a model solves the puzzle, and how much of that is the image and how much the knowledge of the holes."""

import torch
from torch import Tensor

from selfie_lite.beliefs import assign
from selfie_lite.errors import SelfieLiteError
from selfie_lite.loss import masked_patch_logits
from selfie_lite.patch_network import PatchNetwork
from selfie_lite.patches import crop_patches, patchify
from selfie_lite.selfie import Selfie, take

BATCH = 250  # images that pass through P at once


@torch.no_grad()
def puzzle_accuracy(model: Selfie, images: Tensor, visible: Tensor, masked: Tensor) -> dict[str, dict[str, float]]:
    """Part of the hidden patches put in their right place: each row of the logits by itself, and all of an image at
    once, each candidate used once (SciPy's linear_sum_assignment). Beside the model as it is, three controls, in which
    the queries are made from something else, while locations asked and candidates stay.

    With the paper's queries, v = u + e, the summary adds the same to every arrangement of an image's candidates, so
    that "one_to_one" cannot change from control to control.

    Args:
        images: (B, 3, H, W) uint8, or float as `augment.normalize` gives them; two or more.
        visible, masked: (B, V) and (B, M) int64, as `sample_masks` gives them.

    Returns:
        {name: {"row": accuracy, "one_to_one": accuracy}} for the names "own"; "other_image", the next image seen
        through this image's holes; "other_image_and_holes", the next image with its own visible locations; and
        "mean_content", every visible patch the mean of all visible patches.

    Raises:
        SelfieLiteError: for fewer than two images, or masks that do not fit.
    """
    if len(images) < 2:
        raise SelfieLiteError(f"the controls take another image for each: give two or more, not {len(images)}.")
    was_training = model.training
    model.eval()
    patches = patchify(model.prepare(images), model.grid)  # (B, N, 3, S, S)
    patches = crop_patches(patches, model.gap, None) if model.gap else patches
    visible, masked = model.prepare_masks(visible, masked, len(images), None, images.device)
    names = ("own", "other_image", "other_image_and_holes", "mean_content")
    if model.query_form == "location":  # looks at no visible patch
        candidates = _embed(model.patch_network, take(patches, masked))
        contexts: dict[str, tuple[Tensor | None, Tensor]] = dict.fromkeys(names, (None, visible))
    else:
        features = _embed(model.patch_network, patches)  # (B, N, D), each patch once
        candidates = take(features, masked)
        seen = features if model.tied else _embed(model.encoder_network, patches)
        own, other = take(seen, visible), take(seen.roll(-1, 0), visible)
        mean = own.mean(dim=(0, 1)).expand_as(own)
        seen_at = [(own, visible), (other, visible), (own.roll(-1, 0), visible.roll(-1, 0)), (mean, visible)]
        contexts = dict(zip(names, seen_at, strict=True))
    found = {}
    for name, (context, locations) in contexts.items():
        queries, _ = model.query(context, locations, masked)  # (B, M, D)
        found[name] = accuracies(masked_patch_logits(queries, candidates))
    model.train(was_training)
    return found


def accuracies(logits: Tensor) -> dict[str, float]:
    """(B, M, M) logits, right ones on the diagonal → accuracy by row, and by one-to-one assignment."""
    right = torch.arange(logits.shape[-1], device=logits.device)
    by_row = (logits.argmax(dim=2) == right).float().mean().item()
    one_to_one = (torch.stack([assign(one) for one in logits]) == right.cpu()).float().mean().item()
    return {"row": by_row, "one_to_one": one_to_one}


def _embed(network: PatchNetwork, patches: Tensor) -> Tensor:
    """(B, K, 3, S, S) → (B, K, D), some images at a time."""
    return torch.cat([network(part) for part in patches.split(BATCH)])
