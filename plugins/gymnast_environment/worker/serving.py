"""Answering requests for one environment, one after another."""

from __future__ import annotations

import os
import socket
import sys
import traceback
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from .faults import Refused, described
from .framing import receive, send
from .seeing import Sensed
from .session import Session


def serve(connection: socket.socket) -> None:
    """Until the other side is gone."""
    answering = Answering()
    while True:
        try:
            request, arrays = receive(connection)
        except (EOFError, OSError):
            break
        try:
            for header, content in answering.answers(request, arrays):
                send(connection, {"ok": True, **header}, content)
        except Exception as error:  # whatever an environment raises
            if not isinstance(error, Refused):
                traceback.print_exc()
            refused = error.what if isinstance(error, Refused) else None
            text = str(error) if isinstance(error, Refused) else described(error)
            send(connection, {"ok": False, "error": text[:20000], "refused": refused})
    answering.close()
    # Some simulators crash when Python takes them down.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


class Answering:
    """What each request does."""

    def __init__(self) -> None:
        self._session: Session | None = None

    def answers(self, request: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Iterator[Any]:
        """The answers to one request: a header and arrays each."""
        what = request["do"]
        if what == "make":
            for entry in request.get("path") or ():
                if entry not in sys.path:
                    sys.path.append(entry)
            self._session = Session(request["view"])
            about = self._session.make(request["id"], request["args"], request.get("entry"))
            yield {"about": about}, {}
            return
        session = self._session
        assert session is not None, "make comes first"
        if what == "reset":
            yield told(session.reset(request["seed"], request["options"]))
        elif what == "step":
            for action_A in arrays["actions"]:
                yield told(session.step(action_A))
        elif what == "expert":
            yield {}, {"action": session.expert(request.get("function"))}
        elif what == "call":
            yield {"value": session.call(request["method"], request["keywords"])}, {}
        elif what == "rehearse":
            verdict = session.rehearse(request["seed"], request["options"], request["constant"])
            yield {"verdict": verdict}, {}
        else:
            raise ValueError(f"unknown request {what!r}")

    def close(self) -> None:
        if self._session is not None:
            self._session.close()


def told(sensed: Sensed) -> Any:
    """What is shown, as a message."""
    arrays = {"frames": sensed.frames_VHWC}
    if sensed.proprio_P is not None:
        arrays["proprio"] = sensed.proprio_P
    header = {
        "instruction": sensed.instruction,
        "outcome": sensed.outcome,
        "outcomes": dict(sensed.outcomes),
        "ended": sensed.ended,
    }
    return header, arrays


def heard(header: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Sensed:
    """The inverse of `told`. Raises `ValueError` for a message that holds something else."""
    frames, proprio = arrays.get("frames"), arrays.get("proprio")
    if frames is None or frames.ndim != 4 or frames.dtype != np.uint8 or frames.shape[-1] != 3:
        raise ValueError("an answer without pictures")
    outcome = header.get("outcome")
    return Sensed(
        frames,
        proprio,
        header.get("instruction"),
        None if outcome is None else float(outcome),
        {str(name): bool(value) for name, value in dict(header.get("outcomes") or {}).items()},
        bool(header.get("ended")),
    )
