"""What a person reads of a run: README.md and the curve, in its folder."""

import re
import shlex

from selfie_lite.files import write_file
from selfie_lite.training.config import TrainingConfig


def write_report(
    config: TrainingConfig, lines: list[dict], command: str, title: str, held_out: str, choices: int
) -> None:
    """README.md and curve.png in the run's folder: what it was, how it went, how to repeat it.

    Args:
        command: of the command line, "pretrain" or "finetune". title: what was trained, one sentence.
        held_out: how the line of metrics calls the accuracy on images never trained on.
        choices: how many answers there are to choose from; guessing is right once in so many.
    """
    from selfie_lite.workbook.figures import draw_training, to_png

    losses = [(line["step"], line["loss"]) for line in lines if "loss" in line]
    if not losses:  # stopped before the first line of metrics
        return
    reached = {line["step"]: line[held_out] for line in lines if held_out in line}
    figure = draw_training(*zip(*losses, strict=True), reached, choices)
    write_file(config.folder / "curve.png", to_png(figure, dpi=120))
    ended = f"After {lines[-1]['step']:,} of {config.steps:,} steps of {config.batch_size} images"
    words = held_out.replace("held_out", "held-out").replace("_", " ")
    result = (
        f"{words} {reached[max(reached)]:.3f}, where guessing gives {1 / choices:.3f}" if reached else "no result yet"
    )
    settings = shlex.quote(f"runs/{config.name}/config.json")
    write_file(
        config.folder / "README.md",
        f"# {as_text(config.name)}\n\n{as_text(title)} {ended}: {result}.\n\n"
        f"![training loss and {words}](curve.png)\n\n"
        "`config.json` has every setting, `environment.json` versions, device and commit, `metrics.jsonl` the numbers, "
        "`checkpoint/` the weights.\n\n"
        f"Repeat it: `selfie-lite {command} --config {settings} --name another`\n",
    )


def as_text(words: str) -> str:
    """Words that Markdown shows as they are."""
    return re.sub(r"([\\`*\[\]<>#|~]|\b_|_\b)", r"\\\1", words)
