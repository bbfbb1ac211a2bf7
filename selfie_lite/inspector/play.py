"""Placing patches oneself, against the models: what lies where, and the score."""

from dataclasses import dataclass, field, replace

from torch import Tensor

from selfie_lite.beliefs import Beliefs
from selfie_lite.errors import SelfieLiteError
from selfie_lite.inspector.choice import some_of


@dataclass
class Play:
    """One puzzle after another. A candidate is called by its row in the logits: candidate k belongs at masked[k]."""

    placed: dict[int, int] = field(default_factory=dict)  # location → candidate
    checked: bool = False
    score: dict[str, int] = field(default_factory=lambda: {"rounds": 0, "patches": 0, "yours": 0})  # and each model's
    image: Tensor | None = None
    masked: list[int] = field(default_factory=list)
    seed: int = 0

    def copy(self) -> "Play":
        return replace(self, placed=dict(self.placed), score=dict(self.score))

    def begin(self, image: Tensor, masked: list[int], seed: int) -> None:
        """Nothing is placed yet; if it is the puzzle that is being played, nothing happens."""
        if image is not self.image or (masked, seed) != (self.masked, self.seed):
            self.image, self.masked, self.seed, self.placed, self.checked = image, masked, seed, {}, False

    @property
    def left(self) -> list[int]:
        """Locations with nothing placed yet."""
        return [at for at in self.masked if at not in self.placed]

    @property
    def right(self) -> int:
        return sum(self.masked[candidate] == at for at, candidate in self.placed.items())

    def place(self, location: int, candidate: int) -> None:
        """A candidate lies at one location only; what lay there goes back."""
        if not self.checked:
            self.placed = {at: k for at, k in self.placed.items() if k != candidate} | {location: candidate}

    def check(self, looked: list[tuple[str, Beliefs]]) -> None:
        """Count what is right.

        Raises:
            SelfieLiteError: if something is still to be placed, or all has been counted.
        """
        if self.checked:
            raise SelfieLiteError("This puzzle is checked already: take the next one.")
        if self.left:
            raise SelfieLiteError(f"Place a candidate at {some_of(self.left)} first.")
        self.checked = True
        for name, more in (("rounds", 1), ("patches", len(self.masked)), ("yours", self.right)):
            self.score[name] += more
        for name, beliefs in looked:
            self.score[name] = self.score.get(name, 0) + beliefs.right

    def describe(self, location: int, looked: list[tuple[str, Beliefs]]) -> str:
        """What to do next, or how it went, and the score."""
        count = len(self.masked)
        if self.checked:
            said = [f"You placed {self.right} of {count} right"]
            said += [f"{name} {beliefs.right} of {count}" for name, beliefs in looked]
            text = f"{'; '.join(said)}; guessing gives 1 on average. (A model may use a patch twice.)"
        elif self.left:
            text = f"What belongs at location {location}? Press a candidate. To fill: {some_of(self.left)}."
        else:
            text = "All are placed: check, or press a location and another candidate to change your mind."
        if rounds := self.score["rounds"]:
            total = [f"you {self.score['yours']}"]
            total += [f"{name} {self.score[name]}" for name, _ in looked if name in self.score]
            patches = self.score["patches"]
            text += f" So far, {patches} patches in {rounds} round{'s' * (rounds > 1)}: {', '.join(total)}."
        return text
