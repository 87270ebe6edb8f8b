"""Reading a request within a time, however slowly a client sends it."""

from __future__ import annotations

import io
import socket
import time
from typing import Any


class TooSlow(Exception):
    """A request took too long to arrive."""


class TimedSocket(io.RawIOBase):
    """Reads from a socket until a deadline, however little each packet brings."""

    def __init__(self, connection: socket.socket, seconds: float) -> None:
        self._connection, self._deadline, self._seconds = connection, time.monotonic() + seconds, seconds

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TooSlow
        self._connection.settimeout(left)
        try:
            return self._connection.recv_into(buffer)
        except TimeoutError:
            raise TooSlow from None
        finally:
            self._connection.settimeout(self._seconds)
