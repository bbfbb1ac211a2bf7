"""The numbers of a run for TensorBoard."""

import time
from pathlib import Path

from selfie_lite.files import whole_file


class EventFile:
    """One file of events, which always holds each line of metrics once.

    Written without torch's SummaryWriter: that writes in a thread, where nobody hears that the disk is full, and begins
    another file, with doubles, each time a run goes on.
    """

    def __init__(self, folder: Path, lines: list[dict]):
        """Begin the file anew with `lines`; files of an earlier start of this run go."""
        started = int(time.time())
        old = list(folder.glob("events.out.tfevents.*"))
        self.path = old[0] if old else folder / f"events.out.tfevents.{started}.selfie-lite"
        with whole_file(self.path) as work:
            self._append(work, [{"step": 0, "file_version": "brain.Event:2"}, *lines])
        for path in old[1:]:
            path.unlink(missing_ok=True)

    def add(self, line: dict) -> None:
        """Append one line of metrics."""
        self._append(self.path, [line])

    @staticmethod
    def _append(path: Path, lines: list[dict]) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.summary.writer.record_writer import RecordWriter

        with open(path, "ab") as file:
            writer = RecordWriter(file)
            for line in lines:
                event = Event(wall_time=time.time(), step=line["step"])
                if "file_version" in line:
                    event.file_version = line["file_version"]
                else:
                    values = {k: v for k, v in line.items() if k != "step" and isinstance(v, int | float)}
                    event.summary.CopyFrom(
                        Summary(value=[Summary.Value(tag=tag, simple_value=v) for tag, v in values.items()])
                    )
                writer.write(event.SerializeToString())
