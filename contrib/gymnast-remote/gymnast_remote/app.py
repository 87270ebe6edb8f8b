"""The two protocols over one port: POST /act (JSON), a websocket at / (msgpack), and GET /healthz.

What cannot be decided is answered by an error: 4xx for what clients do wrong, 503 when busy, 500 when the policy fails.
Websockets say it as text, as openpi's server does, and stay open.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import secrets
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from aiohttp import WSCloseCode, WSMessage, WSMsgType, web
from gymnast_core.errors import GymnastError

from gymnast_remote.arrays import Malformed, from_json, from_msgpack, to_json, to_msgpack
from gymnast_remote.service import BadObservation, Busy, PolicyService

logger = logging.getLogger(__name__)
# What clients do wrong is told to them; aiohttp would also log each with a traceback. Our own failures `_guard` logs.
_http_logger = logging.getLogger(f"{__name__}.http")
_http_logger.setLevel(logging.CRITICAL)
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
IGNORED_HEADER = "X-Gymnast-Ignored"
"""Names what of a request the policy did not see, as a JSON list."""
MAX_HEADER = 2000
CLOSED = (WSMsgType.CLOSE, WSMsgType.CLOSING, WSMsgType.CLOSED, WSMsgType.ERROR)


@dataclass(frozen=True)
class Limits:
    """What clients may take."""

    body: int = 8 * 2**20
    """Bytes of a request or message."""
    read_seconds: float = 10.0
    """Time to send a request's body."""
    idle_seconds: float = 60.0
    """Time to send a request's head, and between requests of a connection."""
    heartbeat: float = 30.0
    """Seconds between pings of a websocket; one that leaves them unanswered is closed."""
    connections: int = 32
    """Websockets open at once."""


class Gateway:
    """The handlers of one server."""

    def __init__(self, service: PolicyService, limits: Limits, token: str | None = None) -> None:
        self.service, self.limits, self._token = service, limits, token
        self._sockets: set[web.WebSocketResponse] = set()
        self._deciding: set[web.WebSocketResponse] = set()
        self._stopping = False

    def application(self) -> web.Application:
        application = web.Application(client_max_size=self.limits.body, middlewares=[self._guard])
        application.router.add_post("/act", self._act)
        application.router.add_get("/", self._talk)
        application.router.add_get("/healthz", self._healthz)
        application.on_shutdown.append(self._say_goodbye)
        return application

    def runner(self) -> web.AppRunner:
        """Not yet set up."""
        return web.AppRunner(
            self.application(),
            access_log=None,
            logger=_http_logger,
            # A client that hangs up gives its place in the queue to the next one.
            handler_cancellation=True,
            keepalive_timeout=self.limits.idle_seconds,
            lingering_time=0.5,
            # A small compressed body may be a large one.
            auto_decompress=False,
            shutdown_timeout=30.0,
        )

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            self._check_sender(request)
            return await handler(request)
        except web.HTTPException as error:
            kept = {name: error.headers[name] for name in ("Allow", "WWW-Authenticate") if name in error.headers}
            return _refusal(error.status, error.reason, **kept)
        except Busy as error:
            return _refusal(503, str(error), **{"Retry-After": str(error.retry_after)})
        except (Malformed, BadObservation) as error:
            return _refusal(400, str(error))
        except GymnastError as error:
            return _refusal(422, str(error))
        except ConnectionError:
            raise
        # Whatever a policy does, the server goes on; the reason is for our log, not for strangers.
        except Exception:
            logger.exception("The policy failed.")
            return _refusal(500, "The policy failed; the server's log says why.")

    def _check_sender(self, request: web.Request) -> None:
        if "Origin" in request.headers:
            # Web pages reach servers of this machine through the user's browser; robots have no browser.
            raise web.HTTPForbidden(reason="Requests of web pages are refused.")
        if self._token is None or request.path == "/healthz":
            return
        _, _, sent = request.headers.get("Authorization", "").partition(" ")
        # Bytes that are no UTF-8 arrive as surrogates.
        if not secrets.compare_digest(sent.strip().encode(errors="surrogateescape"), self._token.encode()):
            reason = "Send the server's token: Authorization: Bearer TOKEN (or Api-Key TOKEN)."
            raise web.HTTPUnauthorized(reason=reason, headers={"WWW-Authenticate": "Bearer"})

    async def _healthz(self, request: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    async def _act(self, request: web.Request) -> web.Response:
        payload = from_json(await self._body(request))
        # OpenVLA's clients without a patched json module encode twice, and expect that of the answer.
        is_double = isinstance(payload, dict) and isinstance(payload.get("encoded"), str)
        asked = self.service.read(from_json(payload["encoded"]) if is_double else payload)
        actions_LA = await self.service.decide(asked.observation)
        answer = to_json(actions_LA[0] if len(actions_LA) == 1 else actions_LA)
        # The body is the array alone, as these clients expect it.
        headers = {IGNORED_HEADER: json.dumps(asked.ignored)[:MAX_HEADER]} if asked.ignored else {}
        text = to_json(answer) if is_double else answer
        return web.Response(text=text, content_type="application/json", headers=headers)

    async def _body(self, request: web.Request) -> bytes:
        if request.content_type != "application/json":
            raise web.HTTPUnsupportedMediaType(reason="Send JSON, as application/json.")
        if request.headers.get("Content-Encoding", "identity") != "identity":
            raise web.HTTPUnsupportedMediaType(reason="Send the body uncompressed.")
        if (request.content_length or 0) > self.limits.body:
            raise web.HTTPRequestEntityTooLarge(self.limits.body, request.content_length or 0)
        try:
            async with asyncio.timeout(self.limits.read_seconds):
                return await request.read()
        except TimeoutError:
            raise web.HTTPRequestTimeout(reason="The body took too long to arrive.") from None

    async def _talk(self, request: web.Request) -> web.StreamResponse:
        if len(self._sockets) >= self.limits.connections or self._stopping:
            raise Busy(5)
        limits = self.limits
        socket = web.WebSocketResponse(heartbeat=limits.heartbeat, max_msg_size=limits.body, compress=False)
        if not socket.can_prepare(request):
            raise web.HTTPUpgradeRequired(reason="This is a websocket (openpi's protocol); or POST JSON to /act.")
        self._sockets.add(socket)
        try:
            await socket.prepare(request)
            await socket.send_bytes(to_msgpack(self.service.description))
            # A client that is gone when its answer is ready is no news.
            with contextlib.suppress(ConnectionError):
                await self._converse(socket)
        finally:
            self._sockets.discard(socket)
        return socket

    async def _converse(self, socket: web.WebSocketResponse) -> None:
        receiving = asyncio.ensure_future(socket.receive())
        try:
            while (message := await receiving).type not in CLOSED:
                # Pings are answered while something is received: also while the policy decides.
                receiving = asyncio.ensure_future(socket.receive())
                self._deciding.add(socket)
                try:
                    await self._reply(socket, message)
                finally:
                    self._deciding.discard(socket)
                if self._stopping:
                    await _go_away(socket)
        finally:
            receiving.cancel()

    async def _reply(self, socket: web.WebSocketResponse, message: WSMessage) -> None:
        began = time.monotonic()
        try:
            if message.type is not WSMsgType.BINARY:
                raise Malformed("Send msgpack, as a binary message.")
            asked = self.service.read(from_msgpack(message.data))
            # Each socket has one observation in the queue at most, and their number is limited.
            actions_LA = await self.service.decide(asked.observation, patient=True)
        except (Malformed, BadObservation, GymnastError) as error:
            await socket.send_str(str(error))
        except Exception:
            logger.exception("The policy failed.")
            await socket.send_str("The policy failed; the server's log says why.")
        else:
            timing = {"infer_ms": 1000 * (time.monotonic() - began)}
            ignored = {"ignored": list(asked.ignored)} if asked.ignored else {}
            await socket.send_bytes(to_msgpack({"actions": actions_LA, "server_timing": timing, **ignored}))

    async def _say_goodbye(self, application: web.Application) -> None:
        """Close idle websockets; the others are closed when they have their answer."""
        self._stopping = True
        await asyncio.gather(*(_go_away(socket) for socket in self._sockets - self._deciding))


async def _go_away(socket: web.WebSocketResponse) -> None:
    await socket.close(code=WSCloseCode.GOING_AWAY, message=b"The server is stopping.")


def _refusal(status: int, reason: str, **headers: Any) -> web.Response:
    response = web.json_response({"error": reason}, status=status, headers=headers)
    if status in (408, 413):
        response.force_close()  # the rest of the body is not read
    return response
