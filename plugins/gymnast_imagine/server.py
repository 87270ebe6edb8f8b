"""A web server for one person on this machine: loopback only, a secret address, bounded requests."""

from __future__ import annotations

import contextlib
import json
import logging
import secrets
import socket
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from gymnast_core.errors import GymnastError
from gymnast_pages.loopback import HEADERS, READ_SECONDS, LoopbackHandler, LoopbackServer, Refused
from gymnast_pages.timed import TooSlow

logger = logging.getLogger(__name__)

MAX_BODY = 16_384
"""Bytes of a request's body."""
DRAIN_SECONDS, DRAIN_READS = 0.5, 64
"""Pause after which, and amount (of 64 KiB) up to which, the rest of a refused request is read."""
POLICY = (
    "default-src 'none'; img-src data:; style-src 'nonce-{nonce}'; script-src 'nonce-{nonce}'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""What the page may load and do."""


@dataclass(frozen=True)
class Site:
    """What the server shows."""

    page: Callable[[str], str]
    """nonce of scripts and styles -> HTML."""
    read: Callable[[], Mapping[str, Any]]
    """What GET `state` answers, as JSON."""
    write: Mapping[str, Callable[[Any], Mapping[str, Any]]]
    """POST `NAME` with a JSON body -> JSON. `Refused` and `GymnastError` become 4xx."""


class PageServer(LoopbackServer):
    """Serves a `Site` under `url`, which contains a secret."""

    def __init__(self, site: Site, port: int = 0, read_seconds: float = READ_SECONDS) -> None:
        """Raises `ConfigError` if the port is taken."""
        self.site = site
        another = "keyboard.port=N, or keyboard.port=0 for any free one"
        super().__init__(_Handler, port, read_seconds, another_port=another)

    def handle_error(self, request: Any, client_address: Any) -> None:
        # Clients that hang up are no news; everything else is answered by the handler.
        if not isinstance(sys.exception(), OSError):
            logger.exception("A request from %s failed.", client_address)


class _Handler(LoopbackHandler):
    server: PageServer

    def setup(self) -> None:
        super().setup()
        self.requestline, self.command, self.request_version = "", "", self.protocol_version
        self._refused = False

    def finish(self) -> None:
        super().finish()
        if self._refused:
            self._drain()

    def _drain(self) -> None:
        """Read what is left of a refused request: closing before would tear the answer from the client's hands."""
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_WR)
            self.connection.settimeout(DRAIN_SECONDS)
            for _ in range(DRAIN_READS):
                if not self.connection.recv(65_536):
                    return

    def handle_one_request(self) -> None:
        try:
            super().handle_one_request()
        except TooSlow:
            self.request_version, self.close_connection = self.protocol_version, True
            self._refuse(HTTPStatus.REQUEST_TIMEOUT, "The request took too long to arrive.")

    def do_GET(self) -> None:
        self._answer(self._get)

    def do_POST(self) -> None:
        self._answer(self._post)

    def do_HEAD(self) -> None:
        self._refuse(HTTPStatus.METHOD_NOT_ALLOWED, f"{self.command} is not for this page.")

    do_PUT = do_DELETE = do_PATCH = do_OPTIONS = do_TRACE = do_CONNECT = do_HEAD

    def _answer(self, respond: Callable[[str], None]) -> None:
        try:
            respond(self.name_under_secret(self.path))
        except Refused as refused:
            self._refuse(refused.status, str(refused))
        except GymnastError as error:
            self._refuse(HTTPStatus.CONFLICT, str(error))
        except (TooSlow, OSError):
            raise
        # Whatever a world does, the page goes on and says so.
        except Exception as error:
            logger.exception("%s failed.", self.command)
            self._refuse(HTTPStatus.INTERNAL_SERVER_ERROR, f"{type(error).__name__}: {error}")

    def _get(self, name: str) -> None:
        if name == "":
            nonce = secrets.token_urlsafe(12)
            self._send(HTTPStatus.OK, "text/html; charset=utf-8", self.server.site.page(nonce), nonce)
        elif name == "state":
            self._send_json(HTTPStatus.OK, self.server.site.read())
        else:
            raise Refused(HTTPStatus.NOT_FOUND, f"There is no page {name!r} here.")

    def _post(self, name: str) -> None:
        act = self.server.site.write.get(name)
        if act is None:
            raise Refused(HTTPStatus.NOT_FOUND, f"There is no action {name!r}.")
        self._send_json(HTTPStatus.OK, act(self._body()))

    def _body(self) -> Any:
        if self.headers.get_content_type() != "application/json":
            raise Refused(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "Send JSON, as application/json.")
        lengths = self.headers.get_all("Content-Length") or []
        if len(lengths) != 1 or "Transfer-Encoding" in self.headers:
            raise Refused(HTTPStatus.LENGTH_REQUIRED, "Say how long the body is, once: Content-Length.")
        if not (lengths[0].isascii() and lengths[0].isdigit()):
            raise Refused(HTTPStatus.BAD_REQUEST, "Content-Length is not a number.")
        if len(lengths[0]) > 9 or int(lengths[0]) > MAX_BODY:
            raise Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"The body may have {MAX_BODY} bytes at most.")
        text = self.rfile.read(int(lengths[0]))
        if len(text) < int(lengths[0]):
            raise Refused(HTTPStatus.BAD_REQUEST, "The body is shorter than Content-Length says.")
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            raise Refused(HTTPStatus.BAD_REQUEST, "The body is not JSON.") from None

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """What the base class finds wrong with a request; it would answer without a status line, or blame us (5xx)."""
        self.request_version, self.close_connection = self.protocol_version, True
        self._refuse(HTTPStatus(code) if code < 500 else HTTPStatus.BAD_REQUEST, message or "This is not HTTP.")

    def _refuse(self, status: HTTPStatus, reason: str) -> None:
        self._refused = True
        self._send_json(status, {"error": reason})

    def _send_json(self, status: HTTPStatus, content: Mapping[str, Any]) -> None:
        self._send(status, "application/json", json.dumps(content))

    def _send(self, status: HTTPStatus, kind: str, text: str, nonce: str = "") -> None:
        content = text.encode()
        self.send_response(status)
        for name, value in HEADERS.items():
            self.send_header(name, value)
        self.send_header("Content-Security-Policy", POLICY.format(nonce=nonce))
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)
