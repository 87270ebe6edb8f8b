"""A server with OpenAI's interface on this machine, for the tests of editors."""

from __future__ import annotations

import base64
import email.parser
import email.policy
import io
import json
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
from PIL import Image


def png(image: np.ndarray) -> str:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


class Server(ThreadingHTTPServer):
    """Answers as OpenAI's API does; `answer` makes (status, JSON) of a request's path and fields."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests: list[tuple[str, dict[str, Any]]] = []
        self.headers: list[dict[str, str]] = []
        self.answer: Callable[[dict[str, Any]], tuple[int, Any]] = mirrored

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        kind = self.headers["Content-Type"]
        fields = json.loads(body) if kind == "application/json" else read_form(kind, body)
        self.server.headers.append({name.lower(): value for name, value in self.headers.items()})
        self.server.requests.append((self.path, fields))
        status, content = self.server.answer(fields)
        text = json.dumps(content).encode()
        self.send_response(status)
        if 300 <= status < 400:
            self.send_header("Location", f"{self.server.url}/elsewhere")
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, format: str, *arguments: Any) -> None:
        pass


def read_form(kind: str, body: bytes) -> dict[str, Any]:
    message = email.parser.BytesParser(policy=email.policy.HTTP).parsebytes(
        f"Content-Type: {kind}\r\n\r\n".encode() + body
    )
    fields: dict[str, Any] = {}
    for part in message.iter_parts():
        content = part.get_payload(decode=True)
        is_file = part.get_filename() is not None
        fields[str(part.get_param("name", header="content-disposition"))] = content if is_file else content.decode()
    return fields


def mirrored(fields: dict[str, Any]) -> tuple[int, Any]:
    """The picture that was sent, flipped left to right."""
    with Image.open(io.BytesIO(fields["image"])) as file:
        image = np.asarray(file.convert("RGB"))
    return 200, {"created": 1, "data": [{"b64_json": png(image[:, ::-1])}]}


def said(text: str) -> tuple[int, Any]:
    """A chat completion."""
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}
    return 200, {"id": "1", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]}
