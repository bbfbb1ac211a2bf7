"""What a model believes about one image: numbers for the pictures, and the same in words."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torchvision.transforms.v2 import functional as tv

from selfie_lite.errors import SelfieLiteError, require_type
from selfie_lite.loss import diagonal_targets
from selfie_lite.patches import PatchGrid, sample_masks
from selfie_lite.selfie import Selfie


@dataclass
class Beliefs:
    """One image, which of its patches are hidden, and what a model makes of it. V visible patches, M masked ones."""

    image: Tensor  # (3, H, W) uint8
    grid: PatchGrid
    visible: Tensor  # (V,) int64, locations
    masked: Tensor  # (M,) int64, locations
    logits: Tensor  # (M, M): row = masked location, column = candidate, right ones on the diagonal
    attention: Tensor | None  # (blocks, heads, 1 or 1 + M, V): from u0 (and each mask token) to the visible patches
    order: Tensor  # (M,) int64: the candidates, shuffled; the first is shown as A, the second as B, …

    @property
    def probabilities(self) -> Tensor:
        """(M, M): each row sums to 1."""
        return self.logits.softmax(dim=1)

    @property
    def choices(self) -> Tensor:
        """(M,) int64: the candidate that the model takes for each masked location."""
        return self.logits.argmax(dim=1)

    @property
    def assigned(self) -> Tensor:
        """(M,) int64: the candidate of each masked location where every candidate is used once."""
        return assign(self.logits)

    @property
    def right(self) -> int:
        """How many masked locations get their own patch."""
        return int((self.choices == torch.arange(len(self.masked))).sum())

    @property
    def loss(self) -> float:
        """Mean cross-entropy in nats; guessing gives ln M."""
        return torch.nn.functional.cross_entropy(self.logits, diagonal_targets(self.logits[None])).item()

    def letter(self, candidate: int) -> str:
        """What a candidate is called in pictures: A to Z by its place in the shuffled row, then A1, B1, …"""
        place = self.order.tolist().index(candidate)
        return chr(ord("A") + place % 26) + (str(place // 26) if place >= 26 else "")

    def row_of(self, location: int) -> int:
        """Which row of the logits belongs to a masked location.

        Raises:
            SelfieLiteError: if the location is not masked.
        """
        masked = self.masked.tolist()
        if location not in masked:
            raise SelfieLiteError(f"location {location} is not hidden; hidden are {_list(masked)}.")
        return masked.index(location)

    def describe_guess(self, location: int) -> str:
        row = self.row_of(location)
        chances, choice = self.probabilities[row], int(self.choices[row])
        verdict = "right" if choice == row else f"wrong: {self.letter(row)} belongs there, at {chances[row]:.0%}"
        return (
            f"For location {location} the model takes candidate {self.letter(choice)} with {chances[choice]:.0%}, "
            f"which is {verdict}. Guessing gives each of {len(self.masked)} candidates {1 / len(self.masked):.0%}."
        )

    def describe_logits(self) -> str:
        sure = self.probabilities.amax(dim=1)
        row = int(sure.argmax())
        return (
            f"{self._score()} Surest is the choice for location {int(self.masked[row])}, with {sure[row]:.0%}. "
            "Each row is one location, each column one candidate, right answers on the diagonal."
        )

    def describe_puzzle(self) -> str:
        wrong = [
            f"at {int(location)} lies the patch of {int(self.masked[choice])}"
            for location, choice in zip(self.masked, self.choices, strict=True)
            if self.masked[choice] != location
        ]
        if len(wrong) > 6:
            wrong[5:] = [f"and {len(wrong) - 5} more"]
        return f"{self._score()} {('Wrong: ' + ', '.join(wrong) + '.') if wrong else 'No patch is wrong.'}"

    def describe_attention(self, weights: Tensor, who: str) -> str:
        """weights: (V,), as drawn."""
        near = weights.argsort(descending=True)[:3]
        most = _list([f"{int(self.visible[i])} ({weights[i]:.0%})" for i in near])
        return (
            f"{who} looks most at location{'s' * (len(near) > 1)} {most}; an even share of what goes to the "
            f"{len(weights)} visible patch{'es' * (len(weights) > 1)} is {weights.sum() / len(weights):.0%}."
        )

    def attention_from(self, location: int | None, block: int | None = None, head: int | None = None) -> Tensor:
        """(V,): attention from u0 (None) or the mask token of a location, of one block and head or (None) their mean.

        Raises:
            SelfieLiteError: if the model has no attention, no mask tokens, or not so many blocks or heads.
        """
        if self.attention is None:
            raise SelfieLiteError("this model has no attention to show: it pools by mean or max, or not at all.")
        blocks, heads, rows, _ = self.attention.shape
        for name, number, count in (("block", block, blocks), ("head", head, heads)):
            if number is not None and not 0 <= number < count:
                raise SelfieLiteError(f"{name} runs from 0 to {count - 1}, but is {number}.")
        if location is not None and rows == 1:
            raise SelfieLiteError("this model has no mask tokens: only u0 looks at the visible patches.")
        row = 0 if location is None else 1 + self.row_of(location)
        chosen = self.attention[:, :, row]
        chosen = chosen.mean(dim=0) if block is None else chosen[block]
        return chosen.mean(dim=0) if head is None else chosen[head]

    def _score(self) -> str:
        count = len(self.masked)
        return (
            f"{self.right} of {count} right (guessing: 1 on average), "
            f"loss {self.loss:.2f} nats (guessing: {math.log(count):.2f})."
        )


def assign(logits: Tensor) -> Tensor:
    """(M, M) → (M,) int64, of all ways to use each candidate once, the one with the largest sum of logits."""
    return torch.from_numpy(linear_sum_assignment(logits.detach().double().cpu().numpy(), maximize=True)[1])


def look(model: Selfie, image: Tensor, masked: Tensor | list[int] | None = None, seed: int = 0) -> Beliefs:
    """Ask a model about one image.

    Args:
        model: on any device, of any float dtype; asked in evaluation mode, and left in the mode it was in.
        image: (3, H, W) uint8; a larger one than the model takes is cut to a square at its centre and shrunk.
        masked: locations to hide; drawn with `seed` if not given, `model.num_masked` of them.
        seed: also of the order in which the candidates are shown.

    Returns:
        What it believes: float32, on the CPU.

    Raises:
        SelfieLiteError: for an image of another kind, or too small; for locations that the grid does not have; or if
            what the model gives is no number.
    """
    require_type("model", model, Selfie, ' Load one: load_pretrained("additive").')
    image = fit_image(image, model.grid)
    try:
        generator = torch.Generator().manual_seed(seed)
    except (TypeError, ValueError, RuntimeError):
        raise SelfieLiteError(f"seed must be a whole number of 64 bits, but is {seed!r}.") from None
    if masked is None:
        masked = sample_masks(1, model.grid, model.num_masked, generator)[1][0]
    masked = _read_masked(masked, model.grid.count)
    shown = torch.ones(model.grid.count, dtype=torch.bool)
    shown[masked] = False
    visible = shown.nonzero()[:, 0]
    weights = next(model.parameters())
    inputs = [x[None].to(weights.device) for x in (image, visible, masked)]
    with torch.no_grad(), _evaluating(model):
        if weights.dtype != torch.float32:  # bytes, as a model takes them, become float32
            inputs[0] = model.prepare(inputs[0]).to(weights.dtype)
        out = model(*inputs, return_attention=model.has_attention)
    logits = out.logits[0].float().cpu()
    if not logits.isfinite().all():
        raise SelfieLiteError("the model answers NaN or infinity, no number: its weights are damaged, or diverged.")
    order = torch.randperm(len(masked), generator=torch.Generator().manual_seed(seed))
    attention = out.attention[0].float().cpu() if model.has_attention else None
    return Beliefs(image, model.grid, visible, masked, logits, attention, order)


def fit_image(image: Tensor, grid: PatchGrid) -> Tensor:
    """(3, H, W) uint8 → (3, S, S) uint8, S = `grid.image_size`: cut to a square at the centre, and shrunk.

    Raises:
        SelfieLiteError: if it is smaller than that, or something else than one RGB image of bytes.
    """
    require_type("image", image, Tensor, " From an (H, W, 3) array: torch.from_numpy(array).permute(2, 0, 1).")
    if image.ndim != 3 or image.shape[0] != 3:
        raise SelfieLiteError(f"one image has shape (3, height, width), but this has {_hint_for_shape(image)}.")
    if image.dtype != torch.uint8:
        raise SelfieLiteError(
            f"an image holds bytes, torch.uint8 from 0 to 255, but this {image.dtype}. From 0 to 1: "
            "(image * 255).round().to(torch.uint8); from 0 to 255: image.round().to(torch.uint8)."
        )
    height, width = image.shape[-2:]
    if min(height, width) < grid.image_size:
        raise SelfieLiteError(
            f"the image has {width}×{height} pixels, but the model takes {grid.image_size}×{grid.image_size}: "
            "choose a larger image or another model."
        )
    image = image.cpu()
    if height == width == grid.image_size:
        return image
    square = tv.center_crop(image, [min(height, width)])
    return tv.resize(square, [grid.image_size, grid.image_size], antialias=True)


def _hint_for_shape(image: Tensor) -> str:
    shape = tuple(image.shape)
    if image.ndim == 4:
        return f"{shape}: a batch; give one of it, images[0]"
    if image.ndim == 3 and shape[-1] == 3:
        return f"{shape}: put the colours first, image.permute(2, 0, 1)"
    if image.ndim == 2 or shape[:1] == (1,):
        return f"{shape}: make a grey image RGB, image.expand(3, -1, -1)"
    if shape[:1] == (4,):
        return f"{shape}: leave out its transparency, image[:3]"
    return f"{shape}"


def _read_masked(masked: Tensor | Sequence[int], count: int) -> Tensor:
    """(M,) int64, sorted, on the CPU."""
    try:
        found = torch.as_tensor(masked).cpu()
    except (TypeError, ValueError, RuntimeError, OverflowError):
        raise SelfieLiteError(f"masked must be locations, whole numbers in a list, but is {masked!r:.80}.") from None
    if found.numel() and (found.dtype == torch.bool or found.is_floating_point() or found.is_complex()):
        hint = ": a mask? mask.nonzero()[:, 0] are its locations" if found.dtype == torch.bool else ""
        raise SelfieLiteError(f"masked must be locations, whole numbers, but holds {found.dtype}{hint}.")
    if (
        found.ndim != 1
        or not 1 <= len(found) < count
        or found.min() < 0
        or found.max() >= count
        or (len(found.unique()) < len(found))
    ):
        raise SelfieLiteError(
            f"masked must be 1 to {count - 1} different locations from 0 to {count - 1}, but is {found.tolist()!s:.80}."
        )
    return found.to(torch.int64).sort().values


@contextmanager
def _evaluating(model: Selfie) -> Iterator[None]:
    """Each part of the model in evaluation mode, and then in its own again."""
    training = [part for part in model.modules() if part.training]
    try:
        for part in training:
            part.training = False
        yield
    finally:
        for part in training:
            part.training = True


def _list(items: list) -> str:
    words = [str(item) for item in items]
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
