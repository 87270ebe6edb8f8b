"""SIGTERM ends a command as Ctrl-C does: what is open is closed, the user is told how to go on, the status is 143.
A second one ends it at once."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

TERMINATED = 128 + signal.SIGTERM
"""Exit status of a command that SIGTERM ended, as shells have it."""


class Terminated(BaseException):
    """SIGTERM arrived. Like KeyboardInterrupt, no `except Exception` stops it."""


def _terminate(number: int, frame: FrameType | None) -> None:
    # Whoever sends a second one does not want to wait for the closing. The kernel ends the process then, whatever it
    # hangs in; nothing is lost that SIGKILL would not lose.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    raise Terminated


def listen(leads: bool = True) -> None:
    """Raise `Terminated` in the main thread when SIGTERM comes, whoever wanted to handle it before.

    A process that does not lead waits for the leader to end it instead.
    """
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _terminate if leads else signal.SIG_IGN)


@contextmanager
def terminating() -> Iterator[None]:
    """Inside, SIGTERM raises `Terminated`; afterwards it does what it did before."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    listen()
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
