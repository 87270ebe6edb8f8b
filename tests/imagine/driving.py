"""Sessions with dots, and a server for them in this process."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dots
import torch

from gymnast_core.config import ComponentConfig
from gymnast_core.types import Task
from gymnast_imagine.action_sources import Space
from gymnast_imagine.config import ImagineConfig
from gymnast_imagine.keyboard import site
from gymnast_imagine.server import PageServer
from gymnast_imagine.session import Session


def session(output: Path, *, fails_after: int | None = None, **options: Any) -> Session:
    """Two worlds, the first of them noisy."""
    settings = {"actions": "keyboard", "chunk": 2, "horizon": 8, "output": str(output), **options}
    config = ImagineConfig(ComponentConfig("dots"), **settings)
    task = Task("start", "move <the dot>", dots.draw(torch.tensor([8.0, 8.0]))[None, None])
    noisy = dots.DotWorld(dots.DotWorld.Config(noise=40, fails_after=fails_after))
    worlds = {"imagined": noisy, "other-dots": dots.DotWorld(dots.DotWorld.Config())}
    return Session(config, worlds, task, Space(("x", "y"), torch.zeros(2), torch.tensor([2.0, 1.0])))


@contextmanager
def serving(driven: Session, **options: Any) -> Iterator[PageServer]:
    with PageServer(site(driven), **options) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
