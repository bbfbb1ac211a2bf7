"""The puzzle that the inspector shows now: an image, what is hidden of it, and what one model or two believe."""

import torch

from selfie_lite.beliefs import Beliefs, look
from selfie_lite.inspector.choice import ChosenImage
from selfie_lite.inspector.play import Play
from selfie_lite.inspector.sources import History
from selfie_lite.patches import PatchGrid
from selfie_lite.selfie import Selfie


class Puzzle:
    """What is shown, and what there is to choose of the models. Whoever fills it asks `look` again after a change."""

    models: list[tuple[str, History]]  # by name, at every step that there is; one, or two that share the image
    step: int  # of the first
    image: ChosenImage
    masked: list[int]
    seed: int  # of the order of the candidates
    play: Play
    _looked: tuple | None = None

    @property
    def steps(self) -> list[int]:
        return list(self.models[0][1])

    @property
    def model(self) -> Selfie:
        return self.models[0][1][self.step]

    @property
    def grid(self) -> PatchGrid:
        return grid_of(self.models[0][1])

    @property
    def attention_size(self) -> tuple[int, int]:
        """How many blocks, and heads in each; 0 where there is no attention."""
        pool = self.model.pool
        blocks: list = list(pool.blocks) if pool is not None and self.model.has_attention else []
        return len(blocks), blocks[0].num_heads if blocks else 0

    @property
    def order(self) -> list[int]:
        """The candidates, as they are laid out in play."""
        return self.look()[0][1].order.tolist()

    def look(self) -> list[tuple[str, Beliefs]]:
        """What each model believes, by its name. They are asked once, and again when something has changed."""
        asked = [(name, of[max(of) if i else self.step]) for i, (name, of) in enumerate(self.models)]
        about = (asked, self.masked, self.seed)
        if self._looked is None or self._looked[0] is not self.image.raw or self._looked[1] != about:
            threads = torch.get_num_threads()
            torch.set_num_threads(1)  # enough for one image, and quick beside a training run
            try:
                found = [(name, look(model, self.image.raw, self.masked, self.seed)) for name, model in asked]
            finally:
                torch.set_num_threads(threads)
            self._looked = self.image.raw, about, found
            self.play.begin(self.image.raw, self.masked, self.seed)
        return self._looked[2]


def grid_of(history: History) -> PatchGrid:
    return next(iter(history.values())).grid
