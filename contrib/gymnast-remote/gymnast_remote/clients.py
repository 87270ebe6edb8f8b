"""Clients of the two protocols: an observation as a dict of arrays and text goes out, an array of actions comes back.

- `OpenVLAClient`: POST /act with JSON, as vla-scripts/deploy.py of OpenVLA (arXiv 2406.09246) and OpenVLA-OFT serve it.
- `OpenpiClient`: msgpack over a websocket, as scripts/serve_policy.py of Physical-Intelligence/openpi serves it.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from abc import ABC, abstractmethod
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, TypeVar

import aiohttp
import numpy as np
from gymnast_core.errors import GymnastError
from gymnast_core.network.secrecy import Mask
from gymnast_core.network.wording import shown

from gymnast_remote.arrays import Malformed, from_json, from_msgpack, to_json, to_msgpack

T = TypeVar("T")
MAX_ANSWER = 16 * 2**20
"""Bytes of an answer, at most."""
FIRST_PAUSE = 0.25
"""Seconds before the first new attempt; each further pause is twice as long."""
CLOSED = (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSING, aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.ERROR)


class RemoteError(GymnastError):
    """A policy server that cannot be reached, refuses, or answers something else than actions."""


class _Again(Exception):
    """No connection, or a busy server: worth another attempt, after `pause` seconds at least."""

    def __init__(self, reason: str, pause: float = 0.0) -> None:
        super().__init__(reason)
        self.pause = pause


@dataclass(frozen=True)
class Link:
    """Where the server is and how patient to be."""

    url: str
    headers: Mapping[str, str]
    timeout: float
    """Seconds for one decision."""
    retries: int
    """Attempts after the first, while the connection fails or the server is busy."""
    concurrency: int
    """Observations in flight."""
    mask: Mask = field(default_factory=Mask)
    """Takes the token out of what the server says."""

    def said(self, text: str) -> str:
        """What a server says, for an error: one line, without the token."""
        return shown(text, self.mask)


class Background:
    """An event loop in a thread of its own, so that blocking callers can keep connections open."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self._main, name="gymnast-remote", daemon=True)
        self.thread.start()

    def _main(self) -> None:
        self.loop.run_forever()
        self.loop.close()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        future = asyncio.run_coroutine_threadsafe(work, self.loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def stop(self, last: Coroutine[Any, Any, None]) -> None:
        """Do `last`, then end the thread."""

        async def end() -> None:
            try:
                await last
            finally:
                self.loop.stop()

        asyncio.run_coroutine_threadsafe(end(), self.loop)
        # Garbage may be collected, and what it holds closed, in that very thread.
        if threading.current_thread() is not self.thread:
            self.thread.join()


class Client(ABC):
    """One server. `decide` blocks; `close` is for good."""

    def __init__(self, link: Link) -> None:
        self.link = link
        self._background = Background()
        self._session: aiohttp.ClientSession | None = None

    def decide(self, payloads: Sequence[Mapping[str, Any]]) -> list[np.ndarray]:
        """The server's actions for each observation, in order: (A,) or (H, A). Raises `RemoteError`."""
        return self._background.run(self._decide_all(payloads))

    def close(self) -> None:
        self._background.stop(self._close())

    @abstractmethod
    async def _ask(self, payload: Mapping[str, Any]) -> Any:
        """One attempt. Raises `_Again`, `RemoteError`, and what aiohttp raises."""

    async def _decide_all(self, payloads: Sequence[Mapping[str, Any]]) -> list[np.ndarray]:
        if self._session is None:
            limits = aiohttp.ClientTimeout(total=None, sock_connect=self.link.timeout)
            connector = aiohttp.TCPConnector(limit=self.link.concurrency)
            self._session = aiohttp.ClientSession(timeout=limits, headers=self.link.headers, connector=connector)
        free = asyncio.Semaphore(self.link.concurrency)

        async def one(payload: Mapping[str, Any]) -> np.ndarray:
            async with free:
                return _actions(await self._attempts(payload), self.link)

        waiting = [asyncio.ensure_future(one(payload)) for payload in payloads]
        try:
            return await asyncio.gather(*waiting)
        finally:
            for task in waiting:
                task.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)

    async def _attempts(self, payload: Mapping[str, Any]) -> Any:
        url, timeout, pause = self.link.url, self.link.timeout, FIRST_PAUSE
        for left in range(self.link.retries, -1, -1):
            try:
                async with asyncio.timeout(timeout):
                    return await self._ask(payload)
            except TimeoutError as error:
                raise RemoteError(f"{url} did not answer within {timeout:g} s. Raise timeout=SECONDS.") from error
            except Malformed as error:
                told = self.link.said(str(error))
                raise RemoteError(f"{url} answered something that cannot be read: {told}") from None
            except aiohttp.InvalidURL as error:
                raise RemoteError(f"{url!r} is not an address; write e.g. http://127.0.0.1:8000.") from error
            except (_Again, aiohttp.ClientConnectionError) as error:
                if not left:
                    reason = self.link.said(str(error) or type(error).__name__)
                    raise RemoteError(
                        f"No decision from {url} after {self.link.retries + 1} attempts: {reason}. "
                        "Is the server running there, with room for that many connections (concurrency)?"
                    ) from None
                pause = max(pause, min(getattr(error, "pause", 0.0), timeout))
            except aiohttp.ClientError as error:
                told = self.link.said(str(error))
                raise RemoteError(f"{url} does not speak this protocol: {told}. Check url and protocol.") from None
            await asyncio.sleep(pause)
            pause *= 2
        raise AssertionError("unreachable")

    async def _close(self) -> None:
        if self._session is not None:
            await self._session.close()


class OpenVLAClient(Client):
    """POST of JSON for every observation."""

    async def _ask(self, payload: Mapping[str, Any]) -> Any:
        assert self._session is not None
        headers = {"Content-Type": "application/json"}
        async with self._session.post(
            self.link.url, data=to_json(payload), headers=headers, allow_redirects=False
        ) as answer:
            content = await _read(answer)
            _check_status(self.link, answer.status, content, answer.headers)
        decoded = from_json(content)
        if isinstance(decoded, str):
            # Some servers encode twice; OpenVLA's own says "error" with status 200 when it fails.
            with contextlib.suppress(Malformed):
                return from_json(decoded)
            told = self.link.said(decoded)
            raise RemoteError(f"{self.link.url} could not decide: {told!r}. The server's log says more.")
        return decoded.get("action", decoded.get("actions")) if isinstance(decoded, dict) else decoded


class OpenpiClient(Client):
    """Websockets that stay open, as many as there are observations in flight."""

    def __init__(self, link: Link) -> None:
        super().__init__(link)
        self._idle: list[aiohttp.ClientWebSocketResponse] = []

    async def _ask(self, payload: Mapping[str, Any]) -> Any:
        while self._idle:
            # One that was closed while it was idle is no news: servers do that.
            with contextlib.suppress(_Again, aiohttp.ClientConnectionError):
                return await self._ask_over(self._idle.pop(), payload)
        return await self._ask_over(await self._connect(), payload)

    async def _ask_over(self, socket: aiohttp.ClientWebSocketResponse, payload: Mapping[str, Any]) -> Any:
        try:
            await socket.send_bytes(to_msgpack(payload))
            answer = from_msgpack(await self._receive(socket))
        except BaseException:
            # An answer still on its way must not become that of the next observation.
            await _drop(socket)
            raise
        self._idle.append(socket)
        if not isinstance(answer, dict) or "actions" not in answer:
            raise RemoteError(f"{self.link.url} answered without 'actions'. Check protocol.")
        return answer["actions"]

    async def _connect(self) -> aiohttp.ClientWebSocketResponse:
        assert self._session is not None
        try:
            socket = await self._session.ws_connect(
                self.link.url, max_msg_size=MAX_ANSWER, compress=0, timeout=aiohttp.ClientWSTimeout(ws_close=1.0)
            )
        except aiohttp.WSServerHandshakeError as error:
            _check_status(self.link, error.status, error.message.encode(), error.headers or {})
            raise
        try:
            from_msgpack(await self._receive(socket))  # what the server says of itself
        except BaseException:
            await _drop(socket)
            raise
        return socket

    async def _receive(self, socket: aiohttp.ClientWebSocketResponse) -> bytes:
        message = await socket.receive()
        if message.type is aiohttp.WSMsgType.BINARY:
            return message.data
        if message.type is aiohttp.WSMsgType.TEXT:
            # The protocol's way to say that deciding failed: text, often a traceback.
            reason = message.data.strip().splitlines()[-1:] or ["no reason given"]
            raise RemoteError(f"{self.link.url} could not decide: {self.link.said(reason[0])}")
        if socket.close_code == aiohttp.WSCloseCode.MESSAGE_TOO_BIG:
            raise RemoteError(f"The observation is too large for {self.link.url}. Use smaller images.")
        if message.type in CLOSED:
            raise _Again(f"the connection was closed (code {socket.close_code})")
        raise RemoteError(f"{self.link.url} does not speak openpi's protocol. Check url and protocol.")

    async def _close(self) -> None:
        for socket in self._idle:
            await _drop(socket)
        await super()._close()


async def _drop(socket: aiohttp.ClientWebSocketResponse) -> None:
    with contextlib.suppress(Exception):
        await socket.close()


async def _read(answer: aiohttp.ClientResponse) -> bytes:
    content = bytearray()
    async for part in answer.content.iter_chunked(65_536):
        content += part
        if len(content) > MAX_ANSWER:
            raise RemoteError(f"{answer.url} answered more than {MAX_ANSWER} bytes.")
    return bytes(content)


def _check_status(link: Link, status: int, content: bytes, headers: Mapping[str, str]) -> None:
    if status in (HTTPStatus.OK, HTTPStatus.SWITCHING_PROTOCOLS):
        return
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        wanted = headers.get("Retry-After", "")
        raise _Again("the server is busy (503)", float(wanted) if wanted.isdecimal() else 0.0)
    url, said = link.url, link.said(content.decode(errors="replace"))
    if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        raise RemoteError(f"{url} refuses us ({status}): {said}. Put its token into the variable that token_env names.")
    raise RemoteError(f"{url} refused the observation ({status}): {said}")


def _actions(found: Any, link: Link) -> np.ndarray:
    """An array, a list of numbers, or a list of arrays (OpenVLA-OFT) as float32 (A,) or (H, A)."""
    try:
        actions = np.asarray(found, dtype=np.float32)
    except (TypeError, ValueError, OverflowError):
        raise RemoteError(f"The server answered {link.said(str(found))!r} instead of actions.") from None
    if actions.ndim not in (1, 2) or not np.isfinite(actions).all():
        raise RemoteError(f"The server's actions have shape {actions.shape} or are not all finite numbers.")
    return actions
