"""One environment each: in this process, or in a worker process of its own."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import weakref
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from gymnast_core.errors import DataError, shortened
from gymnast_environment.hosting import Hosting, worker_variables
from gymnast_environment.view import View
from gymnast_environment.worker.faults import Refused, described
from gymnast_environment.worker.framing import Garbled, TooLarge, receive, send
from gymnast_environment.worker.seeing import Sensed
from gymnast_environment.worker.serving import heard
from gymnast_environment.worker.session import Session

WORKER = Path(__file__).parent / "worker" / "__main__.py"
TAIL = 40
"""Last lines of what a worker printed that are kept."""
GRACE_S = 3.0
"""Seconds that an environment gets to close itself."""


class Lost(Exception):
    """This environment can be used no longer: it crashed, hung, or raised; its text is the episode's error."""


@dataclass(frozen=True)
class About:
    """What is known of an environment before it is reset."""

    name: str
    """Its id."""
    space: str
    """Its action space, in words."""
    low_A: np.ndarray | None
    """float64 smallest actions; None if it does not take vectors."""
    high_A: np.ndarray | None
    """float64 largest actions."""
    fps: float | None
    """Frames (environment steps) a second, if its metadata says so."""

    @classmethod
    def read(cls, told: Mapping[str, Any]) -> About:
        low, high = told["low"], told["high"]
        return cls(
            str(told["name"]),
            str(told["space"]),
            None if low is None else np.asarray(low, np.float64),
            None if high is None else np.asarray(high, np.float64),
            told["fps"],
        )


@dataclass(frozen=True)
class Kind:
    """Which environment: an id, the arguments it is made with, and how it is seen."""

    id: str
    args: Mapping[str, Any]
    view: View
    entry: Mapping[str, Any] | None = None
    """How an id is registered that no import registers."""

    @property
    def key(self) -> str:
        return f"{self.id} {json.dumps([dict(self.args), self.view.told()], sort_keys=True, default=repr)}"


class Host(ABC):
    """Holds one environment.

    Every method raises `DataError` for what the user can set right, and `Lost` when this environment is of no use
    any more.
    """

    kind: Kind
    about: About

    @abstractmethod
    def make(self) -> None:
        """Make the environment."""

    @abstractmethod
    def reset(self, seed: int, options: Mapping[str, Any]) -> Sensed: ...

    @abstractmethod
    def step(self, actions_LA: np.ndarray) -> Iterator[Sensed]:
        """L times what is shown."""

    @abstractmethod
    def expert(self, function: str | None) -> np.ndarray: ...

    @abstractmethod
    def call(self, method: str, keywords: Mapping[str, Any]) -> Any: ...

    @abstractmethod
    def rehearse(self, seed: int, options: Mapping[str, Any], constant: bool) -> str | None: ...

    @abstractmethod
    def hang_up(self) -> None:
        """Tell it that `close` will follow, so that several can close at once."""

    @abstractmethod
    def close(self) -> None:
        """Close the environment, and end its process. May be called more than once, from any thread."""


class InProcess(Host):
    """An environment in this process."""

    def __init__(self, kind: Kind) -> None:
        self.kind, self._session = kind, Session(kind.view.told())

    def make(self) -> None:
        told = self._ask("make", self.kind.id, self.kind.args, self.kind.entry)
        self.about = About.read(told)

    def reset(self, seed: int, options: Mapping[str, Any]) -> Sensed:
        return self._ask("reset", seed, options)

    def step(self, actions_LA: np.ndarray) -> Iterator[Sensed]:
        for action_A in actions_LA:
            yield self._ask("step", action_A)

    def expert(self, function: str | None) -> np.ndarray:
        return self._ask("expert", function)

    def call(self, method: str, keywords: Mapping[str, Any]) -> Any:
        return self._ask("call", method, keywords)

    def rehearse(self, seed: int, options: Mapping[str, Any], constant: bool) -> str | None:
        return self._ask("rehearse", seed, options, constant)

    def hang_up(self) -> None:
        """Nothing: it is this process."""

    def close(self) -> None:
        with suppress(Exception):
            self._session.close()

    def _ask(self, what: str, *arguments: Any) -> Any:
        try:
            return getattr(self._session, what)(*arguments)
        except Refused as error:
            raise DataError(str(error)) from error
        except Exception as error:
            raise Lost(described(error)) from error


class InWorker(Host):
    """An environment in a process of its own, perhaps of another interpreter."""

    def __init__(self, kind: Kind, hosting: Hosting) -> None:
        self.kind, self._hosting = kind, hosting
        self._process: subprocess.Popen[bytes] | None = None
        self._printed: deque[str] = deque(maxlen=TAIL)
        self._closing = threading.Lock()
        self._owner = os.getpid()

    def make(self) -> None:
        try:
            args = json.loads(json.dumps(dict(self.kind.args)))
        except (TypeError, ValueError) as error:
            raise DataError(f"start.args of {self.kind.id} cannot be sent to another process: {error}.") from error
        self._start()
        path = list(sys.path) if self._hosting.python is None else None
        request = {
            "id": self.kind.id,
            "args": args,
            "entry": self.kind.entry,
            "view": self.kind.view.told(),
            "path": path,
        }
        header, _ = self._ask("make", self._hosting.make_timeout_s, **request)
        try:
            self.about = About.read(header["about"])
        except (KeyError, TypeError, ValueError) as error:
            raise self._lost(f"its worker speaks another language: {described(error)}") from error

    def reset(self, seed: int, options: Mapping[str, Any]) -> Sensed:
        return self._shown("reset", self._hosting.reset_timeout_s, seed=seed, options=dict(options) or None)

    def step(self, actions_LA: np.ndarray) -> Iterator[Sensed]:
        self._send("step", {}, {"actions": np.asarray(actions_LA, np.float32)})
        for _ in range(len(actions_LA)):
            yield self._heard(*self._receive("step", self._hosting.step_timeout_s))

    def expert(self, function: str | None) -> np.ndarray:
        _, arrays = self._ask("expert", self._hosting.step_timeout_s, function=function)
        return arrays["action"]

    def call(self, method: str, keywords: Mapping[str, Any]) -> Any:
        header, _ = self._ask("call", self._hosting.step_timeout_s, method=method, keywords=dict(keywords))
        return header["value"]

    def rehearse(self, seed: int, options: Mapping[str, Any], constant: bool) -> str | None:
        # It resets a dozen times at most, where others show the same again and again.
        header, _ = self._ask(
            "rehearse", 12 * self._hosting.reset_timeout_s, seed=seed, options=dict(options) or None, constant=constant
        )
        return header["verdict"]

    def close(self) -> None:
        with self._closing:
            process = self._process
            if process is None or self._life.closed or os.getpid() != self._owner:
                return
            self._connection.close()  # it ends by itself, and closes its environment before
            with suppress(subprocess.TimeoutExpired):
                process.wait(timeout=GRACE_S)
            self._kill(process)
            self._life.close()
            process.wait()

    def hang_up(self) -> None:
        if self._process is not None and os.getpid() == self._owner:
            self._connection.close()

    def kill(self) -> None:
        """End the process at once, even if another thread waits for its answer."""
        process = self._process
        if process is not None and process.returncode is None:
            self._kill(process)

    @staticmethod
    def _kill(process: subprocess.Popen[bytes]) -> None:
        # With whatever it has started itself: it leads a session of its own.
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)

    def _start(self) -> None:
        ours, theirs = socket.socketpair()
        life, our_end = os.pipe()
        self._life = os.fdopen(our_end, "wb", buffering=0)
        python = self._hosting.python or sys.executable
        try:
            self._process = subprocess.Popen(
                [python, str(WORKER), str(theirs.fileno()), str(life)],
                pass_fds=(theirs.fileno(), life),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env=worker_variables(self._hosting, os.environ),
                start_new_session=True,
            )
        except OSError as error:
            ours.close()
            self._life.close()
            raise DataError(f"hosting.python: {python} cannot be started: {error}.") from error
        finally:
            theirs.close()
            os.close(life)
        self._connection = ours
        weakref.finalize(self, _end, self._process, ours, self._life, self._owner)
        threading.Thread(target=_read, args=(self._process, self._printed), daemon=True).start()

    def _ask(self, what: str, timeout_s: float, **request: Any) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        self._send(what, request)
        return self._receive(what, timeout_s)

    def _shown(self, what: str, timeout_s: float, **request: Any) -> Sensed:
        return self._heard(*self._ask(what, timeout_s, **request))

    def _heard(self, header: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Sensed:
        try:
            return heard(header, arrays)
        except (ValueError, TypeError) as error:
            raise self._lost(f"its worker speaks another language: {described(error)}") from error

    def _send(self, what: str, request: Mapping[str, Any], arrays: Mapping[str, np.ndarray] | None = None) -> None:
        try:
            self._connection.settimeout(self._hosting.step_timeout_s)
            send(self._connection, {"do": what, **request}, arrays)
        except (TooLarge, TypeError, ValueError) as error:
            raise DataError(f"{self.kind.id}: {what} cannot be sent to another process: {error}.") from error
        except OSError as error:
            raise self._lost(f"its process is gone before {what}") from error

    def _receive(self, what: str, timeout_s: float) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        try:
            self._connection.settimeout(timeout_s)
            header, arrays = receive(self._connection)
        except TimeoutError as error:
            raise self._lost(f"{what} took longer than {timeout_s:g} s (hosting.{what}_timeout_s)") from error
        except (EOFError, OSError) as error:
            raise self._lost(f"its process ended during {what}", waiting=True) from error
        except Garbled as error:
            raise self._lost(f"its worker speaks another language: {error}") from error
        if header.get("ok") is True:
            return header, arrays
        text = str(header.get("error"))
        if header.get("refused"):
            raise DataError(text)
        raise Lost(text)

    def _lost(self, reason: str, waiting: bool = False) -> Lost:
        """End the process and say why, with the last words of the environment."""
        process = self._process
        assert process is not None
        if waiting:
            with suppress(subprocess.TimeoutExpired):
                process.wait(timeout=2.0)
        code = process.poll()
        self.kill()
        self.close()
        how = "" if code is None else f" ({_ending(code)})"
        time.sleep(0.05 if code is not None else 0.0)  # what it printed last may still be on its way
        words = shortened(" ".join(line.strip() for line in list(self._printed)[-8:]), 600)
        return Lost(f"{self.kind.id}: {reason}{how}." + (f" It printed: {words}" if words else ""))


def _ending(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"signal {signal.Signals(-code).name}"
    except ValueError:
        return f"signal {-code}"


def _read(process: subprocess.Popen[bytes], printed: deque[str]) -> None:
    """Keep the last lines that a worker prints; a pipe that nobody reads would block it."""
    assert process.stdout is not None
    with suppress(OSError, ValueError):
        while line := process.stdout.readline(4096):
            printed.append(line.decode("utf-8", "replace"))
    with suppress(OSError):
        process.stdout.close()


def _end(process: subprocess.Popen[bytes], connection: socket.socket, life: IO[bytes], owner: int) -> None:
    """When a host is dropped without being closed, or Python ends; not in a process that was forked off."""
    if not life.closed and os.getpid() == owner:
        connection.close()
        InWorker._kill(process)
        life.close()
        process.wait()
