"""What a model believes about one image: numbers for the pictures, and the same in words."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as tv

from selfie_lite.errors import SelfieLiteError
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
            raise SelfieLiteError("this model pools by mean or max: it has no attention to show.")
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


def look(model: Selfie, image: Tensor, masked: Tensor | list[int] | None = None, seed: int = 0) -> Beliefs:
    """Ask a model about one image.

    Args:
        model: in evaluation mode.
        image: (3, H, W) uint8; a larger one than the model takes is cut to a square at its centre and shrunk.
        masked: locations to hide; drawn with `seed` if not given, `model.num_masked` of them.
        seed: also of the order in which the candidates are shown.

    Raises:
        SelfieLiteError: for an image that is too small, or locations that the grid does not have.
    """
    image = fit_image(image, model.grid)
    generator = torch.Generator().manual_seed(seed)
    if masked is None:
        masked = sample_masks(1, model.grid, model.num_masked, generator)[1][0]
    masked = torch.as_tensor(masked, dtype=torch.int64).sort().values
    count = model.grid.count
    if not 1 <= len(masked) < count or masked.min() < 0 or masked.max() >= count or len(masked.unique()) < len(masked):
        raise SelfieLiteError(
            f"masked must be 1 to {count - 1} different locations from 0 to {count - 1}, but is {masked.tolist()}."
        )
    shown = torch.ones(count, dtype=torch.bool)
    shown[masked] = False
    visible = shown.nonzero()[:, 0]
    with torch.no_grad():
        has_attention = model.pool.pooling == "attention"
        out = model(image[None], visible[None], masked[None], return_attention=has_attention)
    order = torch.randperm(len(masked), generator=torch.Generator().manual_seed(seed))
    attention = out.attention[0].float() if has_attention else None
    return Beliefs(image, model.grid, visible, masked, out.logits[0].float(), attention, order)


def fit_image(image: Tensor, grid: PatchGrid) -> Tensor:
    """(3, H, W) uint8 → (3, S, S) uint8, S = `grid.image_size`: cut to a square at the centre, and shrunk.

    Raises:
        SelfieLiteError: if it is smaller than that.
    """
    height, width = image.shape[-2:]
    if min(height, width) < grid.image_size:
        raise SelfieLiteError(
            f"the image has {width}×{height} pixels, but the model takes {grid.image_size}×{grid.image_size}: "
            "choose a larger image or another model."
        )
    if height == width == grid.image_size:
        return image
    square = tv.center_crop(image, min(height, width))
    return tv.resize(square, [grid.image_size, grid.image_size], antialias=True)


def _list(items: list) -> str:
    words = [str(item) for item in items]
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
