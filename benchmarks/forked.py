"""Processes that are forked from a server which has imported everything, with the manners of `subprocess.Popen`."""

from __future__ import annotations

import subprocess
from multiprocessing.context import ForkServerProcess


class Forked:
    """One of them; it is started here."""

    def __init__(self, process: ForkServerProcess) -> None:
        self._process = process
        process.start()
        assert process.pid is not None
        self.pid = process.pid

    @property
    def returncode(self) -> int | None:
        """The exit status; None while it runs."""
        return self._process.exitcode

    def poll(self) -> int | None:
        """The exit status; None while it runs."""
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        """The exit status. Raises `subprocess.TimeoutExpired`."""
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired("gymnast", timeout or 0.0)
        return self._process.exitcode
