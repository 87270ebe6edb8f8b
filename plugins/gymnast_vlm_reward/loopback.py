"""A server on this machine that speaks both vendors' interfaces and fails on demand: for tests and free rehearsals.

It judges by the brightness of the last image (bright is a success), so that right and wrong answers can be told apart,
and keeps a log of what it answered and would have billed.

>>> with LoopbackServer() as server:
...     judge = OpenAICompatible(OpenAICompatible.Config(base_url=server.openai_url, model="loopback"))
"""

from __future__ import annotations

import asyncio
import base64
import collections
import hashlib
import io
import json
import random
import socket
import struct
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
from PIL import Image

from gymnast_vlm_reward.prices import Price, Usage

FAULTS = (
    "rate_limit", "error_500", "reset", "slow", "cut_body", "cut_json", "wrong_type",
    "refusal", "cut_answer", "broken_answer", "other_number", "prose", "fewer", "more", "none",
)  # fmt: skip
"""429 with Retry-After, 500, connection reset, an answer after the client's timeout, a body that ends early, a body of
half a JSON, JSON of another shape; and in the answers: a refusal, one cut off at the token limit, half a JSON, a score
off the scale, prose around the JSON, too few, too many, none at all."""

ODD = ("twice", "surrogate", "huge_usage")
"""Right answers of a strange kind, to be named in `Behaviour.faults`: a wrong one is sent behind them on the same
connection; half a letter stands in the reasoning; the server counts 10^20 tokens, and bills what it always does."""

SPOILT = ("refusal", "cut_answer", "broken_answer", "other_number")
"""Those that spoil an answer that is received and billed; a message without content is another such answer."""

TOKENS_IN, TOKENS_OUT = 600, 50
"""Tokens billed for a request, and for each answer in it."""


@dataclass(frozen=True)
class Behaviour:
    """How the server answers."""

    fault_rate: float = 0.0
    """Share of requests with a fault."""
    faults: tuple[str, ...] = FAULTS
    """Faults drawn from, evenly."""
    latency_s: float = 0.0
    """Seconds before each answer."""
    slow_s: float = 1.0
    """Seconds that a slow answer takes in addition."""
    retry_after: str = "0"
    """Value of the header that comes with a 429."""
    api_key: str | None = None
    """Requests without this key get a 401 that echoes theirs; None: none is needed."""
    reply: str | None = None
    """Text of all answers; None: the verdict."""
    status: int | None = None
    """Answer everything with this error, e.g. 401; None: do not."""
    error_code: str = "error"
    """Code in the body of such errors."""
    dissent: int = 0
    """Of the answers to a question, the first so many are wrong."""
    seed: int = 0
    """Seed of the faults."""


@dataclass
class Served:
    """One request in the server's log."""

    question: str
    """Hash of the messages: what was asked, whatever else the request says."""
    fault: str | None
    asked: int
    """Answers asked for."""
    answered: int = 0
    """Answers in the body, if it was whole and was sent to its end in time."""
    output_tokens: int | None = None
    """Billed for it, beside TOKENS_IN; None where no model ran."""
    headers: Mapping[str, str] = field(default_factory=dict)
    parameters: Mapping[str, Any] = field(default_factory=dict)
    """The body without its messages."""
    at: float = field(default_factory=time.monotonic)


class LoopbackServer:
    """Listens on a free port of 127.0.0.1 from construction to `close`."""

    def __init__(self, behaviour: Behaviour | None = None) -> None:
        self.behaviour = behaviour or Behaviour()
        self.log: list[Served] = []
        self.most_at_once = 0
        self._at_once = 0
        self._random = random.Random(self.behaviour.seed)
        self._given: collections.Counter[str] = collections.Counter()
        self._socket = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self._port = self._socket.getsockname()[1]
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        serving = asyncio.start_server(self._serve, sock=self._socket, limit=2**26)
        self._server = asyncio.run_coroutine_threadsafe(serving, self._loop).result()

    def billed_usd(self, price: Price) -> float:
        """What the answers that were sent to their end cost."""
        return sum(price.usd(Usage(TOKENS_IN, served.output_tokens or 0)) for served in self.log if served.answered)

    def excess(self, votes: int) -> int:
        """Answers delivered beyond the votes and the replacements of spoilt ones: what somebody paid for twice.

        Answers that a request brought unasked are not counted.
        """
        needed: collections.Counter[str] = collections.Counter()
        for served in self.log:
            if served.answered:
                is_spoilt = served.fault in SPOILT or (served.fault == "none" and served.answered == 1)
                needed[served.question] += min(served.answered, served.asked) - is_spoilt
        return sum(max(0, count - votes) for count in needed.values())

    @property
    def url(self) -> str:
        """Base address for Anthropic's library."""
        return f"http://127.0.0.1:{self._port}"

    @property
    def openai_url(self) -> str:
        """Base address for OpenAI's library."""
        return f"{self.url}/v1"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop listening and drop every connection."""
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _end(self) -> None:
        self._server.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while (request := await _read_request(reader)) is not None:
                self._at_once += 1
                self.most_at_once = max(self.most_at_once, self._at_once)
                try:
                    if not await self._respond(*request, writer):
                        break
                finally:
                    self._at_once -= 1
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the client went away, which is its right
        finally:
            writer.close()

    async def _respond(self, path: str, headers: dict[str, str], body: Any, writer: asyncio.StreamWriter) -> bool:
        """Answer one request; whether the connection stays open."""
        now = self.behaviour
        fault = self._random.choice(now.faults) if self._random.random() < now.fault_rate else None
        asked = int(body.get("n") or 1)
        parameters = {name: value for name, value in body.items() if name != "messages"}
        served = Served(_hash(body["messages"]), fault, asked, headers=headers, parameters=parameters)
        self.log.append(served)
        await asyncio.sleep(now.latency_s)
        if (error := self._error(headers, fault)) is not None:
            status, payload, extra = error
            return await _write(writer, status, json.dumps(payload).encode(), extra)
        if fault == "reset":
            _reset(writer)
            return False
        # A message is one answer, even an empty one; of chat completions there may be any number.
        is_message = path.endswith("/messages")
        counts = {"none": 0} if is_message else {"fewer": max(asked - 1, 1), "more": asked + 2, "none": 0}
        count = counts.get(fault or "", asked)
        served.output_tokens = TOKENS_OUT * count
        texts = [self._text(served, body, fault if i == 0 else None) for i in range(count)]
        payload = (_message if is_message else _completion)(body, texts, fault)
        if fault == "huge_usage":
            payload["usage"] = dict.fromkeys(payload["usage"], 10**20)
        content = json.dumps(payload).encode()
        if fault == "slow":
            await asyncio.sleep(now.slow_s)
        if fault == "wrong_type":
            content = b'{"choices": "none today", "content": 7}'
        if fault == "cut_json":
            content = content[: len(content) // 2]
        if fault == "cut_body":
            await _write(writer, 200, content, {}, missing=len(content) // 2)
            return False
        stays = await _write(writer, 200, content, {})
        if fault == "twice":
            wrong = [json.dumps({"score": 1 - int(last_brightness(body["messages"]) > 127)})] * asked
            payload = (_message if is_message else _completion)(body, wrong, None)
            await _write(writer, 200, json.dumps(payload).encode(), {})
        if fault not in ("wrong_type", "cut_json", "slow"):
            served.answered = 1 if is_message else count
        return stays

    def _error(self, headers: Mapping[str, str], fault: str | None) -> tuple[int, Any, dict[str, str]] | None:
        now = self.behaviour
        key = headers.get("x-api-key") or headers.get("authorization", "").removeprefix("Bearer ")
        if now.api_key is not None and key != now.api_key:
            return 401, _error_body("invalid_api_key", f"Incorrect API key provided: {key}"), {}
        if now.status is not None:
            return now.status, _error_body(now.error_code, "as configured"), {}
        if fault == "rate_limit":
            return 429, _error_body("rate_limit_exceeded", "slow down"), {"retry-after": now.retry_after}
        if fault == "error_500":
            return 500, _error_body("server_error", "broken"), {}
        return None

    def _text(self, served: Served, body: Any, fault: str | None) -> str:
        if self.behaviour.reply is not None:
            return self.behaviour.reply
        self._given[served.question] += 1
        score = last_brightness(body["messages"]) > 127
        if self._given[served.question] <= self.behaviour.dissent:
            score = not score
        text = json.dumps(
            {
                "reasoning": f"The last frame decides.{chr(0xD83D) * (fault == 'surrogate')}",
                "score": 7 if fault == "other_number" else int(score),
            }
        )
        if fault in ("cut_answer", "broken_answer"):
            return text[:-4]
        return f"Let me think.\n```json\n{text}\n```\nThat is all." if fault == "prose" else text


def last_brightness(messages: Any) -> float:
    """Mean value, 0 to 255, of the last image in messages of either interface."""
    parts = [part for message in messages if isinstance(message["content"], list) for part in message["content"]]
    images = [part for part in parts if part["type"] in ("image_url", "image")]
    last = images[-1]
    data = last["image_url"]["url"].partition(",")[2] if last["type"] == "image_url" else last["source"]["data"]
    return float(np.asarray(Image.open(io.BytesIO(base64.b64decode(data)))).mean())


def _completion(body: Any, texts: list[str], fault: str | None) -> dict[str, Any]:
    """A chat completion (OpenAI API reference, "The chat completion object")."""
    choices = []
    for index, text in enumerate(texts):
        reason = "length" if fault == "cut_answer" and index == 0 else "stop"
        message: dict[str, Any] = {"role": "assistant", "content": text, "refusal": None}
        if fault == "refusal" and index == 0:
            message |= {"content": None, "refusal": "I cannot help with that."}
        choices.append({"index": index, "message": message, "finish_reason": reason, "logprobs": None})
    out = TOKENS_OUT * len(texts)
    usage = {"prompt_tokens": TOKENS_IN, "completion_tokens": out, "total_tokens": TOKENS_IN + out}
    head = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": body["model"]}
    return head | {"choices": choices, "usage": usage}


def _message(body: Any, texts: list[str], fault: str | None) -> dict[str, Any]:
    """A message (Anthropic API reference, "Create a Message"): tool call where one was forced and can be made."""
    content: list[dict[str, Any]] = []
    for text in texts[:1]:
        arguments = _parsed(text)
        if fault == "refusal":
            continue
        if "tools" in body and arguments is not None:
            name = body["tools"][0]["name"]
            content.append({"type": "tool_use", "id": "toolu_1", "name": name, "input": arguments})
        else:
            content.append({"type": "text", "text": text})
    reasons = {"refusal": "refusal", "cut_answer": "max_tokens"}
    reason = reasons.get(fault or "", "tool_use" if content and content[0]["type"] == "tool_use" else "end_turn")
    head = {"id": "msg_1", "type": "message", "role": "assistant", "model": body["model"], "content": content}
    usage = {"input_tokens": TOKENS_IN, "output_tokens": TOKENS_OUT * len(texts)}
    return head | {"stop_reason": reason, "stop_sequence": None, "usage": usage}


def _parsed(text: str) -> dict[str, Any] | None:
    try:
        value = json.loads(text)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def _error_body(code: str, message: str) -> dict[str, Any]:
    # The union of both vendors' error objects; each library reads its own fields.
    return {"type": "error", "error": {"type": code, "code": code, "message": message, "param": None}}


def _hash(messages: Any) -> str:
    return hashlib.sha256(json.dumps(messages, sort_keys=True).encode()).hexdigest()[:16]


async def _read_request(reader: asyncio.StreamReader) -> tuple[str, dict[str, str], Any] | None:
    head = await reader.readuntil(b"\r\n\r\n") if not reader.at_eof() else b""
    if not head:
        return None
    first, *lines = head.decode().strip().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    return first.split()[1], headers, json.loads(body)


async def _write(
    writer: asyncio.StreamWriter, status: int, content: bytes, headers: Mapping[str, str], missing: int = 0
) -> bool:
    lines = {"content-type": "application/json", "content-length": str(len(content)), **headers}
    head = f"HTTP/1.1 {status} Whatever\r\n" + "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    writer.write(head.encode() + b"\r\n" + content[: len(content) - missing])
    await writer.drain()
    return True


def _reset(writer: asyncio.StreamWriter) -> None:
    """End the connection with a TCP reset, not a clean end."""
    connection = writer.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
