"""Claude as a judge: Anthropic's messages interface, the verdict as a forced tool call."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from typing import Any

from gymnast_vlm_reward.config import ServiceConfig
from gymnast_vlm_reward.prices import Usage
from gymnast_vlm_reward.provider import (
    AskError,
    Parts,
    Provider,
    Question,
    Reply,
    client_library,
    request_error,
    scrubbed,
    token_count,
)
from gymnast_vlm_reward.service import ServiceReward
from gymnast_vlm_reward.store import Answer

_TOOL = "report_judgement"
_FAULTS = {
    "refusal": "the model refused",
    "max_tokens": "the answer was cut off at max_tokens",
    "model_context_window_exceeded": "the answer was cut off at the end of the model's context",
}


class AnthropicProvider(Provider):
    """One answer a request: the interface has no `n`."""

    def __init__(self, config: ServiceConfig, api_key: str | None) -> None:
        self._sdk = client_library("anthropic")
        self._config, self._api_key = config, api_key
        self._client: Any = None

    async def ask(self, question: Question, parts: Parts, count: int, first: int) -> Reply:
        request = self.request(question, parts)
        try:
            message = await self._connect().messages.create(**request)
        except Exception as error:
            raise request_error(error, self._sdk, self._api_key) from None
        return read_message(message, self._api_key)

    async def close(self) -> None:
        if self._client is not None:
            await self._client.close()
            self._client = None

    def _connect(self) -> Any:
        if self._client is None:
            self._client = self._sdk.AsyncAnthropic(
                api_key=self._api_key or "none",
                base_url=self._config.base_url,
                timeout=self._config.retry.timeout_s,
                max_retries=0,
            )
        return self._client

    def request(self, question: Question, parts: Parts) -> dict[str, Any]:
        """The arguments of the library's `messages.create`."""
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
        # The library no longer names the temperature, which newer models refuse and older ones take.
        temperature = {} if config.temperature is None else {"temperature": config.temperature}
        if config.extra or temperature:
            request["extra_body"] = config.extra | temperature
        return request


def _part(part: str | bytes) -> dict[str, Any]:
    if isinstance(part, str):
        return {"type": "text", "text": part}
    source = {"type": "base64", "media_type": "image/png", "data": base64.b64encode(part).decode()}
    return {"type": "image", "source": source}


def read_message(message: Any, api_key: str | None) -> Reply:
    """The answer in a message: the tool call's arguments as JSON, else its text."""
    blocks = getattr(message, "content", None)
    if not isinstance(blocks, list):
        raise AskError("The server's answer is no message.", retry=True, doubtful=True)
    calls = [getattr(block, "input", None) for block in blocks if getattr(block, "type", None) == "tool_use"]
    texts = [getattr(block, "text", None) for block in blocks if getattr(block, "type", None) == "text"]
    # Several calls stand side by side, so that the reader sees whether they agree.
    text = "\n".join([*(text for text in texts if isinstance(text, str)), *map(json.dumps, calls)])
    reason = getattr(message, "stop_reason", None)
    fault = _FAULTS.get(reason) if isinstance(reason, str) else None
    if fault is None and not text.strip():
        fault = "the answer was empty"
    answer = Answer(scrubbed(text, api_key), fault)
    return Reply((answer,), _usage(getattr(message, "usage", None)))


def _usage(counted: Any) -> Usage | None:
    names = ("input_tokens", "output_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")
    fresh, output, read, written = (token_count(getattr(counted, name, None)) for name in names)
    if fresh is None or output is None:
        return None
    return Usage(fresh + (read or 0) + (written or 0), output, read or 0)


class Claude(ServiceReward):
    """A model of Anthropic's as a judge: one request a vote."""

    api_version = 2

    vendor = "anthropic"

    @dataclass(frozen=True)
    class Config(ServiceConfig):
        model: str = "claude-sonnet-4-6"
        """Anthropic's name of the model."""
        base_url: str | None = "https://api.anthropic.com"
        """Address of the server."""
        api_key_env: str | None = "ANTHROPIC_API_KEY"
        """Name of the environment variable that holds the key."""
        temperature: float | None = None
        """Sampling temperature, in [0, 1]; null leaves it to the model, as those must that accept none."""

    def make_provider(self, api_key: str | None) -> Provider:
        return AnthropicProvider(self.config, api_key)
