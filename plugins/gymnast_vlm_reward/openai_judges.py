"""Judges behind OpenAI's chat completions interface: OpenAI itself, and any server that speaks it."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Any

from gymnast_core.errors import ConfigError
from gymnast_vlm_reward.config import KEY, ServiceConfig
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

# The newer `responses` interface has no `n`, and servers of open models do not have it at all.


class OpenAIProvider(Provider):
    """Chat completions with `n` answers a request."""

    def __init__(self, config: ServiceConfig, api_key: str | None, *, token_field: str, answers: int) -> None:
        self._sdk = client_library("openai")
        self.answers_per_request = answers
        self._config, self._api_key, self._token_field = config, api_key, token_field
        self._client: Any = None

    async def ask(self, question: Question, parts: Parts, count: int, first: int) -> Reply:
        request = self.request(question, parts, count)
        try:
            completion = await self._connect().chat.completions.create(**request)
        except Exception as error:
            raise request_error(error, self._sdk, self._api_key) from None
        return read_completion(completion, self._api_key)

    async def close(self) -> None:
        if self._client is not None:
            await self._client.close()
            self._client = None

    def _connect(self) -> Any:
        if self._client is None:
            self._client = self._sdk.AsyncOpenAI(
                # Without one the library would send OPENAI_API_KEY to whatever server this is.
                api_key=self._api_key or "none",
                base_url=self._config.base_url,
                timeout=self._config.retry.timeout_s,
                max_retries=0,
            )
        return self._client

    def request(self, question: Question, parts: Parts, count: int) -> dict[str, Any]:
        """The arguments of the library's `chat.completions.create`."""
        config = self._config
        content = [self._part(part) for part in parts]
        request: dict[str, Any] = {
            "model": config.model,
            "messages": [
                {"role": "system", "content": question.prompt.system},
                {"role": "user", "content": content},
            ],
            self._token_field: config.max_tokens,
        }
        if count > 1:
            request["n"] = count
        if config.temperature is not None:
            request["temperature"] = config.temperature
        if question.schema:
            schema = {"name": "judgement", "strict": True, "schema": question.prompt.schema()}
            request["response_format"] = {"type": "json_schema", "json_schema": schema}
        if config.extra:
            request["extra_body"] = config.extra
        return request

    def _part(self, part: str | bytes) -> dict[str, Any]:
        if isinstance(part, str):
            return {"type": "text", "text": part}
        url = f"data:image/png;base64,{base64.b64encode(part).decode()}"
        return {"type": "image_url", "image_url": {"url": url, "detail": self._config.detail}}


def read_completion(completion: Any, api_key: str | None) -> Reply:
    """The answers in a chat completion. The library checks no types, so that anything may be anywhere."""
    choices = getattr(completion, "choices", None)
    if not isinstance(choices, list):
        raise AskError("The server's answer is no chat completion.", retry=True, doubtful=True)
    answers = tuple(_answer(choice, api_key) for choice in choices)
    counted = getattr(completion, "usage", None)
    names = ("prompt_tokens", "completion_tokens")
    sent, received = (token_count(getattr(counted, name, None)) for name in names)
    if sent is None or received is None:
        return Reply(answers, None)
    details = getattr(counted, "prompt_tokens_details", None)
    cached = token_count(getattr(details, "cached_tokens", None)) or 0
    return Reply(answers, Usage(sent, received, min(cached, sent)))


def _answer(choice: Any, api_key: str | None) -> Answer:
    message = getattr(choice, "message", None)
    text, refusal = getattr(message, "content", None), getattr(message, "refusal", None)
    text = text if isinstance(text, str) else ""
    fault = None
    if refusal:
        fault = f"the model refused: {str(refusal)[:200]}"
    elif getattr(choice, "finish_reason", None) == "length":
        fault = "the answer was cut off at max_tokens"
    elif getattr(choice, "finish_reason", None) == "content_filter":
        fault = "the answer was withheld by the server's content filter"
    elif not text.strip():
        fault = "the answer was empty"
    return Answer(scrubbed(text, api_key), scrubbed(fault, api_key) if fault else None)


class GPT4o(ServiceReward):
    """A model of OpenAI's as a judge: all votes in one request."""

    api_version = 2

    vendor = "openai"

    @dataclass(frozen=True)
    class Config(ServiceConfig):
        model: str = "gpt-4o"
        """OpenAI's name of the model."""
        base_url: str | None = "https://api.openai.com/v1"
        """Address of the server."""
        api_key_env: str | None = "OPENAI_API_KEY"
        """Name of the environment variable that holds the key."""

    def make_provider(self, api_key: str | None) -> Provider:
        return OpenAIProvider(self.config, api_key, token_field="max_completion_tokens", answers=self.config.votes)


class OpenAICompatible(ServiceReward):
    """Any server that speaks OpenAI's chat completions (vLLM, `transformers serve`, …) as a judge."""

    api_version = 2

    vendor = "openai-compatible"

    @dataclass(frozen=True)
    class Config(ServiceConfig):
        answers_per_request: int = 1
        """Answers that one request asks for (`n`); vLLM knows it, `transformers serve` ignores it."""

    config: Config

    def make_provider(self, api_key: str | None) -> Provider:
        if self.config.base_url is None:
            raise ConfigError(f"{KEY}.base_url is not set: give the server's address, e.g. http://localhost:8000/v1.")
        answers = self.config.answers_per_request
        if answers < 1:
            raise ConfigError(f"{KEY}.answers_per_request is {answers}; it must be at least 1.")
        # The older name of this field is the one that every server knows.
        return OpenAIProvider(self.config, api_key, token_field="max_tokens", answers=answers)
