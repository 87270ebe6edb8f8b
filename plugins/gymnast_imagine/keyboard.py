"""`actions: keyboard`: a page on this machine from which a world is driven."""

from __future__ import annotations

import base64
import io
import threading
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

import click
import torch
from PIL import Image
from torch import Tensor

from gymnast_core.interfaces import WorldModel
from gymnast_core.signals import Terminated
from gymnast_core.types import Episode
from gymnast_imagine.action_sources import Space, action_space
from gymnast_imagine.config import ImagineConfig
from gymnast_imagine.page import environment
from gymnast_imagine.server import PageServer, Site
from gymnast_imagine.session import Moment, Session
from gymnast_imagine.starts import start_task
from gymnast_pages.loopback import Refused

REACH = 100.0
"""Deviations from the rest action that are accepted, in amplitudes: what is beyond is a mistake."""


def keyboard(
    config: ImagineConfig, worlds: Mapping[str, WorldModel], episodes: Sequence[Episode] | None
) -> dict[str, Any]:
    """Serve the page until Ctrl-C; returns what the command prints. `Terminated` comes through once all is saved."""
    session = Session(config, worlds, start_task(config, episodes), action_space(config, episodes))
    with PageServer(site(session), config.keyboard.port) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True)
        thread.start()
        ended: BaseException | None = None
        try:
            click.echo(f"Open {server.url} in a browser on this machine; Ctrl-C here ends it.", err=True)
            threading.Event().wait()
        except (KeyboardInterrupt, Terminated) as signal:
            ended = signal
            click.echo("", err=True)
        finally:
            server.shutdown()
            thread.join()
    moment = session.now()
    if moment.unsaved:
        folder = session.save()
        click.echo(f"Saved the {moment.step} actions that were not: {folder}", err=True)
    if isinstance(ended, Terminated):
        raise ended
    return {"output": config.output if session.saved else None, "sessions": session.saved}


def site(session: Session) -> Site:
    """The page of a session and what its keys do."""

    def step(body: Any) -> dict[str, Any]:
        return _as_json(session.step(_action(body, session.space)))

    def save(body: Any) -> dict[str, Any]:
        return {"folder": str(session.save()), **_as_json(session.now())}

    return Site(
        page=lambda nonce: _page(session, nonce),
        read=lambda: _as_json(session.now()),
        write={
            "step": step,
            "undo": lambda body: _as_json(session.undo()),
            "reset": lambda body: _as_json(session.reset()),
            "save": save,
        },
    )


def _page(session: Session, nonce: str) -> str:
    config, space = session.config, session.space
    pairs = [pair.split(" ") for pair in config.keyboard.keys]
    moves = [
        {"name": name, "amplitude": amplitude, "keys": pairs[index] if index < len(pairs) else None}
        for index, (name, amplitude) in enumerate(zip(space.names, space.amplitude_A.tolist(), strict=True))
    ]
    context = {
        "nonce": nonce,
        "title": session.task.instruction or session.task.id,
        "world": config.world_model.name,
        "moves": moves,
        "names": list(session.now().frames),
        "settings": {
            "rest": space.rest_A.tolist(),
            "moves": moves,
            "chunk": config.chunk,
            "frame_ms": min(1000 / config.fps, 100),
            "state": _as_json(session.now()),
        },
    }
    return environment().get_template("keyboard.html.j2").render(context)


def _action(body: Any, space: Space) -> Tensor:
    """The action (A,) of a request {"action": [...]}. Raises `Refused` if it is none."""
    values = body.get("action") if isinstance(body, dict) else None
    width = len(space.rest_A)
    if not isinstance(values, list) or not all(type(value) in (int, float) for value in values):
        raise Refused(HTTPStatus.BAD_REQUEST, 'Send {"action": [number, ...]}.')
    if len(values) != width:
        raise Refused(HTTPStatus.BAD_REQUEST, f"The action has {len(values)} values; this world takes {width}.")
    limits = zip(values, space.rest_A.tolist(), space.amplitude_A.tolist(), strict=True)
    # Comparing before converting: an integer of a thousand digits fits no float. NaN compares false.
    if not all(abs(value) <= abs(rest) + REACH * amplitude for value, rest, amplitude in limits):
        raise Refused(HTTPStatus.BAD_REQUEST, f"The action must be finite and within {REACH:g} amplitudes of rest.")
    return torch.tensor(values, dtype=torch.float32)


def _as_json(moment: Moment) -> dict[str, Any]:
    return {
        "step": moment.step,
        "limit": moment.limit,
        "unsaved": moment.unsaved,
        "frames": {name: [_png(frame) for frame in frames] for name, frames in moment.frames.items()},
    }


def _png(frame_HWC: Tensor) -> str:
    buffer = io.BytesIO()
    Image.fromarray(frame_HWC.cpu().numpy()).save(buffer, format="PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
