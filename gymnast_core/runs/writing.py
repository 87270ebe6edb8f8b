"""Snapshots beside the work: they are copied while the work stands still, and written by a thread while it goes on."""

import logging
import os
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gymnast_core.processes import Processes
from gymnast_core.runs.snapshot import HostCopy, copied, store_copies

logger = logging.getLogger(__name__)


class SnapshotWriter:
    """Writes the snapshots of one run, one after the other.

    A snapshot has its name when it is complete: until then, the one before it is what a killed run goes on from. Its
    copy stays in host memory, since the next one goes to the same place. Several processes call the same methods in the
    same order; their threads agree over connections of their own (`Processes.apart`).
    """

    def __init__(self, processes: Processes, keep: int = 2) -> None:
        """The newest `keep` snapshots remain in a folder."""
        self._processes, self._keep = processes, keep
        self._apart: Processes | None = None
        self._copy: HostCopy | None = None
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None
        self.load_seconds = 0.0
        """What the last write took from the other work: its processor time, shared out over the processor's cores."""

    @property
    def busy(self) -> bool:
        """Whether a snapshot is being written."""
        return self._thread is not None and self._thread.is_alive()

    def write(self, directory: Path, step: int, state: Mapping[str, Any], *, own: Mapping[str, Any] | None) -> None:
        """`save_snapshot`, most of it later. Waits for the one before, and raises what ended that."""
        self.wait()
        if self._apart is None:
            self._apart = self._processes.apart()
        self._copy = copied(state, {} if self._copy is None else self._copy.tensors)
        arguments = (directory, step, self._copy, None if own is None else copied(own), self._apart)
        # A daemon: whoever interrupts a second time does not want to wait.
        self._thread = threading.Thread(target=self._store, args=arguments, name="snapshot", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raise what ended a write, without waiting: `StorageError` if the disk refused."""
        if not self.busy:
            self.wait()

    def wait(self) -> None:
        """Until the snapshot is written. Raises what ended the write, once."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        error, self._error = self._error, None
        if error is not None:
            raise error

    def close(self) -> None:
        """Wait at the end of a run that something else may have ended: an error of the write is told, not raised."""
        try:
            self.wait()
        except Exception as error:
            logger.warning("The last snapshot is lost: %s", error)
        self._copy = None

    def _store(self, directory: Path, step: int, state: HostCopy, own: HostCopy | None, processes: Processes) -> None:
        try:
            store_copies(directory, step, state, own=own, processes=processes, keep=self._keep)
        except BaseException as error:
            self._error = error
        self.load_seconds = time.thread_time() / (os.cpu_count() or 1)
