"""A folder's pages over HTTP: loopback only, under a secret address, read-only, nothing outside the folder."""

from __future__ import annotations

import hashlib
import html
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

from gymnast_core.errors import GymnastError
from gymnast_pages.built import PAGES
from gymnast_pages.loopback import HEADERS, READ_SECONDS, LoopbackHandler, LoopbackServer, Refused
from gymnast_pages.timed import TooSlow

Maker = Callable[[Mapping[str, list[str]]], str]
"""Makes a page from the values of a query. Raises `GymnastError` where there is nothing of the kind."""
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".mp4": "video/mp4",
    ".jpg": "image/jpeg",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".json": "application/json",
    ".jsonl": "text/plain; charset=utf-8",
    ".csv": "text/plain; charset=utf-8",
    ".txt": "text/plain; charset=utf-8",
    ".yaml": "text/plain; charset=utf-8",
}
"""What is served; weights and hidden files are not."""
POLICY = (
    "default-src 'none'; img-src 'self' data:; media-src 'self' data:; style-src 'unsafe-inline'; "
    "script-src 'unsafe-inline'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""What a page may load and do."""


def find_pages(folder: Path) -> list[str]:
    """Pages in the folder and below it, relative to it: those at the top first."""
    found = [path.relative_to(folder) for name in PAGES for path in folder.rglob(name) if path.is_file()]
    shown = [path for path in found if not any(part.startswith(".") for part in path.parts)]
    return [path.as_posix() for path in sorted(shown, key=lambda path: (len(path.parts), PAGES.index(path.name), path))]


class FolderServer(LoopbackServer):
    """Serves what is in a folder under `url`, which contains a secret."""

    def __init__(
        self,
        folder: Path,
        port: int = 0,
        read_seconds: float = READ_SECONDS,
        *,
        made: Mapping[str, Maker] | None = None,
        freshen: Callable[[Path], None] = lambda folder: None,
    ) -> None:
        """`made` makes pages that are no files, by name ("" is the start page), from what follows the question mark;
        `freshen` is called with the folder of a page before it is sent. Raises `ConfigError` if the port is taken."""
        self.folder = folder.resolve()
        self.made, self.freshen = dict(made or {}), freshen
        super().__init__(_Handler, port, read_seconds, another_port="--port N, or --port 0")

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Silent: clients hang up and time out."""


class _Handler(LoopbackHandler):
    server: FolderServer

    def handle_one_request(self) -> None:
        try:
            super().handle_one_request()
        except TooSlow:
            self.close_connection = True

    def do_GET(self) -> None:
        try:
            self._answer(unquote(self.name_under_secret(urlsplit(self.path).path)))
        except Refused as refused:
            self._send(refused.status, "text/plain; charset=utf-8", f"{refused}\n".encode())

    do_HEAD = do_GET

    def _answer(self, name: str) -> None:
        if make := self.server.made.get(name):
            self._send_made(make)
            return
        if name:
            if name.rpartition("/")[2] in PAGES:
                self._freshen(name)
            self._send_file(self._path(name))
            return
        pages = find_pages(self.server.folder)
        if len(pages) == 1:
            self._send(HTTPStatus.FOUND, "text/plain; charset=utf-8", b"", Location=quote(pages[0]))
        else:
            self._send(HTTPStatus.OK, TYPES[".html"], _index(self.server.folder.name, pages).encode())

    def _send_made(self, make: Maker) -> None:
        try:
            content = make(parse_qs(urlsplit(self.path).query)).encode()
        except GymnastError as error:
            raise Refused(HTTPStatus.NOT_FOUND, str(error)) from error
        self._send(HTTPStatus.OK, TYPES[".html"], content, ETag=f'"{hashlib.sha256(content).hexdigest()[:32]}"')

    def _freshen(self, name: str) -> None:
        """Have the page of a folder brought up to date; where that fails, what is there is sent."""
        parts = name.split("/")[:-1]
        folder = self.server.folder.joinpath(*parts)
        if any(part.startswith(".") for part in parts) or not folder.resolve().is_relative_to(self.server.folder):
            return
        with suppress(GymnastError, OSError, ValueError):
            self.server.freshen(folder)

    def _path(self, name: str) -> Path:
        """The file of that name. Raises `Refused` if it is not a plain file of a known type inside the folder."""
        missing = Refused(HTTPStatus.NOT_FOUND, "There is no such page in this run.")
        parts = name.split("/")
        if "\0" in name or "\\" in name or any(not part or part.startswith(".") for part in parts):
            raise missing
        try:
            path = self.server.folder.joinpath(*parts).resolve()
            # Also after links are followed.
            inside = path.is_relative_to(self.server.folder) and path.is_file()
        except (OSError, RuntimeError):  # a name that is too long, a link to itself
            raise missing from None
        if not inside or path.suffix not in TYPES:
            raise missing
        return path

    def _send_file(self, path: Path) -> None:
        content, kind = path.read_bytes(), TYPES[path.suffix]
        tag = f'"{path.stat().st_mtime_ns:x}-{len(content):x}"'
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if wanted is None or not content:
            self._send(HTTPStatus.OK, kind, content, ETag=tag, **{"Accept-Ranges": "bytes"})
            return
        first, last = int(wanted[1]), min(int(wanted[2] or len(content)), len(content) - 1)
        if first > last:
            unit = f"bytes */{len(content)}"
            self._send(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, kind, b"", **{"Content-Range": unit})
            return
        place = f"bytes {first}-{last}/{len(content)}"
        self._send(HTTPStatus.PARTIAL_CONTENT, kind, content[first : last + 1], **{"Content-Range": place})

    def _send(self, status: HTTPStatus, kind: str, content: bytes, **more: str) -> None:
        if more.get("ETag", "") and self.headers.get("If-None-Match") == more["ETag"]:
            status, content = HTTPStatus.NOT_MODIFIED, b""
        self.send_response(status)
        own = {"Content-Security-Policy": POLICY, "Content-Type": kind, "Content-Length": str(len(content))}
        for name, value in {**HEADERS, **own, **more}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


def _index(title: str, pages: list[str]) -> str:
    items = "".join(f'<li><a href="{quote(page)}">{html.escape(page)}</a></li>' for page in pages)
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><link rel="icon" href="data:,">'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><meta name="color-scheme" '
        f'content="light dark"><title>{html.escape(title)}</title></head><body style="font: 16px/1.9 system-ui; '
        f'margin: 24px; overflow-wrap: anywhere"><h1>{html.escape(title)}</h1><ul>{items}</ul></body></html>'
    )
