"""What serves a page to one person on this machine: loopback only, under a secret address, slow clients cut off."""

from __future__ import annotations

import io
import secrets
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from gymnast_core.errors import ConfigError
from gymnast_pages.timed import TimedSocket

HOST = "127.0.0.1"
READ_SECONDS = 10.0
"""Time a client has to send its whole request, and to take each part of an answer."""
HEADERS = {
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "same-origin",
}
"""Of every answer; a Content-Security-Policy comes with it, as the pages need."""


class Refused(Exception):
    """A request that is answered by an error status."""

    def __init__(self, status: HTTPStatus, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class LoopbackServer(ThreadingHTTPServer):
    """Serves under `url`, which contains a secret."""

    daemon_threads = True

    def __init__(
        self, handler: type[LoopbackHandler], port: int, read_seconds: float = READ_SECONDS, *, another_port: str
    ) -> None:
        """`port` 0 takes a free one. Raises `ConfigError` if it is taken; `another_port` says how to choose one."""
        self.read_seconds = read_seconds
        self.token = secrets.token_urlsafe(18)
        try:
            super().__init__((HOST, port), handler)
        except OSError as error:
            raise ConfigError(
                f"Port {port} of {HOST} cannot be used: {error.strerror}. Choose another with {another_port}."
            ) from error

    @property
    def hosts(self) -> tuple[str, str]:
        """What a browser that was given our address calls us; other names mean DNS rebinding."""
        return f"{HOST}:{self.server_port}", f"localhost:{self.server_port}"

    @property
    def url(self) -> str:
        return f"http://{self.hosts[0]}/{self.token}/"


class LoopbackHandler(BaseHTTPRequestHandler):
    """One request a connection (HTTP/1.0). Ask for `name_under_secret` before anything is answered."""

    server: LoopbackServer
    server_version, sys_version = "gymnast", ""

    def setup(self) -> None:
        super().setup()
        self.connection.settimeout(self.server.read_seconds)
        self.rfile = io.BufferedReader(TimedSocket(self.connection, self.server.read_seconds))

    def name_under_secret(self, path: str) -> str:
        """What a request's path names under the secret address. Raises `Refused` for another address, for another name
        of this host, and for requests of other sites."""
        hosts = self.headers.get_all("Host") or []
        if len(hosts) != 1 or hosts[0].lower() not in self.server.hosts:
            raise Refused(HTTPStatus.MISDIRECTED_REQUEST, "Open the address that was printed.")
        origin = self.headers.get("Origin")
        if origin is not None and origin.lower() not in {f"http://{host}" for host in self.server.hosts}:
            raise Refused(HTTPStatus.FORBIDDEN, "Requests of other sites are refused.")
        _, _, rest = path.partition("/")
        token, slash, name = rest.partition("/")
        if not slash or not secrets.compare_digest(token.encode(), self.server.token.encode()):
            raise Refused(HTTPStatus.NOT_FOUND, "There is nothing here. Open the address that was printed.")
        return name

    def log_message(self, format: str, *arguments: Any) -> None:
        """Silent: the address is a secret, and a request is no news."""
