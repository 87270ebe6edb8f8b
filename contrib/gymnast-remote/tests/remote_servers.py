"""A policy whose decisions are easy to foretell, and real servers around it."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from aiohttp import web
from gymnast_core.config.ranges import Count
from gymnast_core.errors import DataError
from gymnast_core.interfaces import Policy
from gymnast_core.types import ActionChunk, Needs, Observation

from gymnast_remote.app import Gateway, Limits
from gymnast_remote.service import PolicyService, ServiceConfig


def expected(image_HWC: np.ndarray, instruction: str, chunk: int, width: int = 3) -> np.ndarray:
    """What `Scripted` decides, (L, A)."""
    base = image_HWC.astype(np.float32).mean((0, 1)) / 255 + len(instruction)
    return (base[:width] + 10 * np.arange(chunk, dtype=np.float32)[:, None]).astype(np.float32)


class Scripted(Policy):
    """Decides by the mean colour and the length of the instruction; some instructions make it slow or fail."""

    api_version = 2

    @dataclass(frozen=True)
    class Config:
        chunk_length: Count = 2
        cameras: tuple[str, ...] = ("front",)
        history: Count = 1
        proprio: Count | None = None

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.chunk_length, self.action_dim, self.unnorm_key = config.chunk_length, 3, "bridge_orig"
        self.seen: list[Observation] = []
        self.deciding = self.most_deciding = 0

    @classmethod
    def needs(cls, config: Config) -> Needs:
        return Needs(config.cameras, config.history, config.proprio)

    def act(self, observation, *, temperature=1.0, generator=None) -> ActionChunk:
        self.seen.append(observation)
        self.deciding += 1
        self.most_deciding = max(self.most_deciding, self.deciding)
        instruction = observation.instructions[0]
        if instruction.startswith("sleep "):
            time.sleep(float(instruction.removeprefix("sleep ")))
        self.deciding -= 1
        if instruction == "fail":
            raise RuntimeError("secret detail")
        if instruction == "refuse":
            raise DataError("This image is too dark.")
        actions = expected(observation.latest_BVHWC[0, 0].numpy(), instruction, self.chunk_length)
        actions_BLA = torch.from_numpy(actions)[None]
        return ActionChunk(actions_BLA, torch.zeros_like(actions_BLA[..., :1]))

    def evaluate(self, observation, chunk, *, temperature=1.0):
        raise NotImplementedError


def wait_until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < seconds
        time.sleep(0.01)


@dataclass(frozen=True)
class Serving:
    host: str
    port: int
    policy: Scripted
    gateway: Gateway

    def has_unfinished(self, count: int) -> Callable[[], bool]:
        """Whether that many observations are being decided or wait."""
        return lambda: self.gateway.service._unfinished == count

    @property
    def http(self) -> str:
        return f"http://{self.host}:{self.port}"

    @property
    def ws(self) -> str:
        return f"ws://{self.host}:{self.port}"


@contextmanager
def running_app(runner_factory) -> Iterator[tuple[str, int]]:
    """An aiohttp runner on a free port of this machine, in a thread of its own."""
    loop, ready, stop, address = asyncio.new_event_loop(), threading.Event(), asyncio.Event(), []

    async def main() -> None:
        runner = runner_factory()
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        address.append(runner.addresses[0])
        ready.set()
        await stop.wait()
        await runner.cleanup()

    thread = threading.Thread(target=loop.run_until_complete, args=(main(),), daemon=True)
    thread.start()
    assert ready.wait(20)
    try:
        yield address[0][:2]
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(20)
        assert not thread.is_alive()
        loop.close()


@contextmanager
def serving(
    limits: Limits = Limits(),  # noqa: B008
    token: str | None = None,
    chunk: int = 2,
    cameras: tuple[str, ...] = ("front",),
    proprio: int | None = None,
    **config,
) -> Iterator[Serving]:
    policy = Scripted(Scripted.Config(chunk, cameras, proprio=proprio))
    service = PolicyService(policy, ServiceConfig("scripted", **config))
    gateway = Gateway(service, limits, token)
    with running_app(gateway.runner) as (host, port):
        yield Serving(host, port, policy, gateway)
    service.close()
