"""A server on loopback that answers with any bytes at all: what servers send that they should not."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import io
import json
import socket
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from PIL import Image


@dataclass(frozen=True)
class Asked:
    """A request."""

    path: str
    headers: Mapping[str, str]
    body: Any

    @property
    def score(self) -> int:
        """The right one: the last image is bright for a success."""
        parts = [part for m in self.body["messages"] if isinstance(m["content"], list) for part in m["content"]]
        last = [part for part in parts if part["type"] in ("image_url", "image")][-1]
        data = last["image_url"]["url"].split(",")[1] if "image_url" in last else last["source"]["data"]
        return int(np.asarray(Image.open(io.BytesIO(base64.b64decode(data)))).mean() > 127)

    @property
    def question(self) -> str:
        """What is asked, whatever else the request says."""
        return hashlib.sha256(json.dumps(self.body["messages"]).encode()).hexdigest()

    def completion(self, content: Any = None, reason: Any = "stop", **changes: Any) -> dict[str, Any]:
        """A chat completion; without content, one with the right score."""
        content = json.dumps({"reasoning": "r", "score": self.score}) if content is None else content
        count = self.body.get("n") or 1
        choice = {"finish_reason": reason, "message": {"role": "assistant", "content": content}}
        choices = [{**choice, "index": i} for i in range(count)]
        usage = {"prompt_tokens": 600, "completion_tokens": 50 * count, "total_tokens": 600 + 50 * count}
        return {"id": "x", "object": "chat.completion", "choices": choices, "usage": usage, **changes}

    def message(self, content: Any, reason: Any = "end_turn", **changes: Any) -> dict[str, Any]:
        """A message of Anthropic's."""
        usage = {"input_tokens": 600, "output_tokens": 50}
        head = {"id": "x", "type": "message", "role": "assistant", "usage": usage}
        return {**head, "content": content, "stop_reason": reason, **changes}


Handler = Callable[[Asked], bytes | dict[str, Any] | list[Any] | None]


def response(body: Any, status: str = "200 OK", kind: str = "application/json", **headers: str) -> bytes:
    """A whole HTTP response; header names with underscores for dashes."""
    data = body if isinstance(body, bytes) else (body if isinstance(body, str) else json.dumps(body)).encode()
    lines = {"Content-Type": kind, "Content-Length": str(len(data))}
    lines |= {name.replace("_", "-"): value for name, value in headers.items()}
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"HTTP/1.1 {status}\r\n{head}\r\n".encode() + data


def refusing(field: str, status: str = "400 Bad Request") -> Handler:
    """Refuses requests with this field, and judges the others rightly."""
    error = {
        "error": {"message": f"Unsupported parameter: '{field}'.", "param": field, "code": "unsupported_parameter"}
    }
    return lambda asked: response(error, status) if field in asked.body else asked.completion()


class RawServer:
    """Sends what the handler returns: bytes as they are, anything else as JSON; None ends the connection."""

    def __init__(self, handler: Handler | None = None) -> None:
        self.handler = handler or (lambda asked: asked.completion())
        self.log: list[Asked] = []
        self.connections = 0
        self.answered: Counter[str] = Counter()
        self._socket = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.port = self._socket.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.openai_url = f"{self.url}/v1"
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        # Closing alone leaves the thread waiting, and it would take a connection of whoever gets this descriptor next.
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as file:
            try:
                while line := file.readline():
                    headers = {}
                    while header := file.readline().strip():
                        name, _, value = header.decode("latin1").partition(":")
                        headers[name.lower()] = value.strip()
                    body = json.loads(file.read(int(headers.get("content-length", 0))))
                    asked = Asked(line.decode().split()[1], headers, body)
                    self.log.append(asked)
                    sent = self.handler(asked)
                    if sent is None:
                        return
                    connection.sendall(sent if isinstance(sent, bytes) else response(sent))
            except (OSError, ValueError):
                return
