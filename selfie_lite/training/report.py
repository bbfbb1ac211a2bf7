"""What a person reads of a run, in its folder: README.md with the curve, and TensorBoard's file of events."""

import re
import shlex
import time
from pathlib import Path

from selfie_lite.files import whole_file, write_file
from selfie_lite.training.config import TrainingConfig


def write_report(
    config: TrainingConfig, command: str, title: str, held_out: str, choices: int, lines: list[dict]
) -> None:
    """README.md and curve.png in the run's folder: what it was, how it went, how to repeat it.

    Args:
        command: of the command line, "pretrain" or "finetune". title: what was trained, one sentence.
        held_out: how the line of metrics calls the accuracy on images never trained on.
        choices: how many answers there are to choose from; guessing is right once in so many.
        lines: of metrics.
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
    last = (
        f"{words} {reached[max(reached)]:.3f}, where guessing gives {1 / choices:.3f}" if reached else "no result yet"
    )
    settings = shlex.quote(f"runs/{config.name}/config.json")
    write_file(
        config.folder / "README.md",
        f"# {as_text(config.name)}\n\n{as_text(title)} {ended}: {last}.\n\n"
        f"![training loss and {words}](curve.png)\n\n"
        "`config.json` has every setting, `environment.json` versions, device and commit, `metrics.jsonl` the numbers, "
        "`checkpoint/` the weights.\n\n"
        f"Repeat it: `selfie-lite {command} --config {settings} --name another`\n",
    )


def as_text(words: str) -> str:
    """Words that Markdown shows as they are."""
    return re.sub(r"([\\`*\[\]<>#|~]|\b_|_\b)", r"\\\1", words)


def begin_events(folder: Path, lines: list[dict]) -> Path:
    """A new file of events for TensorBoard with these lines of metrics, instead of those that are there.

    Without torch's SummaryWriter: that writes in a thread, where nobody hears that the disk is full, and begins
    another file, with doubles, each time a run goes on.
    """
    old = list(folder.glob("events.out.tfevents.*"))
    path = old[0] if old else folder / f"events.out.tfevents.{int(time.time())}.selfie-lite"
    with whole_file(path) as work:
        append_events(work, [{"step": 0, "file_version": "brain.Event:2"}, *lines])
    for other in old[1:]:
        other.unlink(missing_ok=True)
    return path


def append_events(path: Path, lines: list[dict]) -> None:
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.summary.writer.record_writer import RecordWriter

    with open(path, "ab") as file:
        for line in lines:
            values = [(name, x) for name, x in line.items() if name != "step" and isinstance(x, int | float)]
            summary = Summary(value=[Summary.Value(tag=name, simple_value=x) for name, x in values])
            event = Event(wall_time=time.time(), step=line["step"], summary=summary)
            if "file_version" in line:
                event.file_version = line["file_version"]  # of an event, this or its values
            RecordWriter(file).write(event.SerializeToString())
