"""Claude as a judge: Anthropic's messages interface, the verdict as a forced tool call."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from gymnast_core.config.ranges import Range
from gymnast_core.network.vendors import ANTHROPIC
from gymnast_core.network.wording import fit, shown
from gymnast_vlm_reward.completeness import EMPTY, finish_fault
from gymnast_vlm_reward.config import ServiceConfig
from gymnast_vlm_reward.prices import Usage
from gymnast_vlm_reward.provider import AskError, Parts, Provider, Question, Reply
from gymnast_vlm_reward.replies import RefusedError, body_of, token_count, words_of
from gymnast_vlm_reward.service import Connection, ServiceReward
from gymnast_vlm_reward.store import Answer
from gymnast_vlm_reward.unsupported import Unsupported

ENDPOINT = "/messages"
_VERSION = "2023-06-01"
_TOOL = "report_judgement"
_COMPLETE = frozenset({"end_turn", "stop_sequence"})
_CALLED = frozenset({"tool_use"})


class AnthropicProvider(Provider):
    """One answer a request: the interface has no `n`."""

    def __init__(self, config: ServiceConfig, connection: Connection) -> None:
        self._config, self._mask = config, connection.mask
        self._unsupported = Unsupported(config)
        headers = {"anthropic-version": _VERSION}
        if connection.key is not None:
            headers["x-api-key"] = connection.key.value
        # Both forms of the address are in use: with the version, and without.
        self._endpoint = ENDPOINT if connection.address.base.endswith("/v1") else f"/v1{ENDPOINT}"
        self._wire = connection.wire(headers)

    async def ask(self, question: Question, parts: Parts, count: int, first: int) -> Reply:
        while True:
            request = self.request(question, parts)
            try:
                body = body_of(await self._wire.post(self._endpoint, request), self._mask)
            except RefusedError as error:
                fields = [name for name in ("temperature", "tool_choice", "tools") if name in request]
                field = self._unsupported.field(error, fields)
                if field is None:
                    raise
                self._unsupported.leave_out_option(error, field)
                continue
            return read_message(body, self._mask)

    async def close(self) -> None:
        await self._wire.close()

    def request(self, question: Question, parts: Parts) -> dict[str, Any]:
        """The body of a request."""
        config = self._config
        request: dict[str, Any] = {
            "model": config.model,
            "max_tokens": config.max_tokens,
            "system": question.prompt.system,
            "messages": [{"role": "user", "content": [_part(part) for part in parts]}],
        }
        if question.schema:
            about = "Report your judgement of the episode."
            request["tools"] = [{"name": _TOOL, "description": about, "input_schema": question.prompt.schema()}]
            request["tool_choice"] = {"type": "tool", "name": _TOOL}
        if config.temperature is not None and "temperature" not in self._unsupported.fields:
            request["temperature"] = config.temperature
        return {**request, **config.extra}


def _part(part: str | bytes) -> dict[str, Any]:
    if isinstance(part, str):
        return {"type": "text", "text": part}
    source = {"type": "base64", "media_type": "image/png", "data": base64.b64encode(part).decode()}
    return {"type": "image", "source": source}


def read_message(body: Mapping[str, Any], mask: Any) -> Reply:
    """The answer in a message: the tool call's arguments as JSON, else its text."""
    blocks = body.get("content")
    if not isinstance(blocks, list):
        said = shown(words_of(body) or f"it has {', '.join(map(str, body)) or 'no fields'}", mask)
        raise AskError(f"The server's answer is no message: {said}", retry=True, doubtful=True)
    blocks = [block for block in blocks if isinstance(block, Mapping)]
    calls = [block.get("input") for block in blocks if block.get("type") == "tool_use" and block.get("name") == _TOOL]
    texts = [block.get("text") for block in blocks if block.get("type") == "text"]
    # Several calls stand side by side, so that the reader sees whether they agree.
    said = "".join(text for text in texts if isinstance(text, str))
    text = "\n".join([*([said] if said else []), *(json.dumps(call, ensure_ascii=False) for call in calls)])
    fault = finish_fault(body.get("stop_reason"), "stop_reason", mask, _COMPLETE | _CALLED if calls else _COMPLETE)
    if fault is None and not text.strip():
        fault = EMPTY
    return Reply((Answer.of(mask(fit(text)), fault),), _usage(body.get("usage")))


def _usage(counted: Any) -> Usage | None:
    counted = counted if isinstance(counted, Mapping) else {}
    names = ("input_tokens", "output_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")
    fresh, output, read, written = (token_count(counted.get(name)) for name in names)
    if fresh is None or output is None:
        return None
    return Usage(fresh + (read or 0) + (written or 0), output, read or 0)


class Claude(ServiceReward):
    """A model of Anthropic's as a judge: one request a vote."""

    api_version = 2

    vendor = "anthropic"
    endpoint = ENDPOINT
    server = ANTHROPIC

    @dataclass(frozen=True)
    class Config(ServiceConfig):
        model: str = "claude-sonnet-4-6"
        """Anthropic's name of the model."""
        base_url: str | None = ANTHROPIC.base_url
        """Address of the server."""
        api_key_env: str | None = None
        """Name of the environment variable that holds the key; null: ANTHROPIC_API_KEY for Anthropic's own server, and
        no key for any other."""
        temperature: Annotated[float, Range(least=0, most=1)] | None = None
        """Sampling temperature, in [0, 1]; null leaves it to the model, as those must that accept none."""

    def make_provider(self, connection: Connection) -> Provider:
        return AnthropicProvider(self.config, connection)
