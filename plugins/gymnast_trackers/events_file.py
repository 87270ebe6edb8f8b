"""TensorBoard's file of scalars, written row by row in the thread that has the numbers.

The writers that TensorBoard and torch bring write in a thread of their own: what the disk refuses shows there as a
traceback, or never, and what waits in their queue is lost when the process is killed.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

from gymnast_core.runs.atomic import storing

VERSION = "brain.Event:2"


class EventsFile:
    """A new file in a folder; readers take it as the continuation of those that are there."""

    def __init__(self, folder: Path, first: int) -> None:
        """What other files hold of the steps from `first` on is void. Raises `StorageError`."""
        name = f"events.out.tfevents.{time.time_ns() // 10**9}.{socket.gethostname()}.{os.getpid()}.{first}"
        self._path = folder / name
        with storing(self._path):
            folder.mkdir(parents=True, exist_ok=True)
            # Unbuffered: a process that is killed leaves whole rows.
            self._writer = RecordWriter(self._path.open("ab", buffering=0))
        self._write(Event(wall_time=time.time(), file_version=VERSION))
        self._write(
            Event(wall_time=time.time(), step=first, session_log=SessionLog(status=SessionLog.SessionStatus.START))
        )

    def add(self, step: int, numbers: Mapping[str, float]) -> None:
        """One point of each curve. Raises `StorageError`."""
        values = [Summary.Value(tag=name, simple_value=number) for name, number in numbers.items()]
        self._write(Event(wall_time=time.time(), step=step, summary=Summary(value=values)))

    def close(self) -> None:
        self._writer.close()

    def _write(self, event: Event) -> None:
        with storing(self._path):
            self._writer.write(event.SerializeToString())
