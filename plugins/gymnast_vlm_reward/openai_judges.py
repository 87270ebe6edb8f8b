"""Judges behind OpenAI's chat completions interface: OpenAI itself, and any server that speaks it."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from gymnast_core.config.ranges import Range
from gymnast_core.network.vendors import OPENAI
from gymnast_core.network.wording import fit, shown
from gymnast_vlm_reward.completeness import EMPTY, Fault, content_text, finish_fault
from gymnast_vlm_reward.config import ServiceConfig
from gymnast_vlm_reward.prices import Usage
from gymnast_vlm_reward.provider import AskError, Parts, Provider, Question, Reply
from gymnast_vlm_reward.replies import RefusedError, body_of, token_count, words_of
from gymnast_vlm_reward.service import Connection, ServiceReward
from gymnast_vlm_reward.store import Answer
from gymnast_vlm_reward.unsupported import Unsupported

# The newer `responses` interface has no `n`, and servers of open models do not have it at all.
ENDPOINT = "/chat/completions"
_LIMITS = ("max_tokens", "max_completion_tokens")
_FIELDS = ("n", *_LIMITS, "temperature", "response_format")
"""What some servers or models refuse."""


class OpenAIProvider(Provider):
    """Chat completions with `n` answers a request."""

    def __init__(self, config: ServiceConfig, connection: Connection, *, token_field: str, answers: int) -> None:
        self.answers_per_request = answers
        self._config, self._token_field = config, token_field
        self._mask = connection.mask
        self._unsupported = Unsupported(config)
        self._knows_number = False
        """Whether it is known if the server answers `n` times."""
        self._wire = connection.wire(self._headers(connection))

    async def ask(self, question: Question, parts: Parts, count: int, first: int) -> Reply:
        while True:
            # Requests in flight find out about a field at the same time; each repeats itself without it.
            request = self.request(question, parts, min(count, self.answers_per_request))
            try:
                body = body_of(await self._wire.post(ENDPOINT, request), self._mask)
            except RefusedError as error:
                if not self._knows_number and self._may_mean_number(error, request):
                    self._knows_number = True  # what comes of it is known to all requests after this one
                    return await self._ask_one(request)
                self._adapt(error, request)
                continue
            reply = read_completion(body, self._mask)
            self._knows_number = self._knows_number or len(reply.answers) > 1
            return reply

    async def close(self) -> None:
        await self._wire.close()

    def request(self, question: Question, parts: Parts, count: int) -> dict[str, Any]:
        """The body of a request."""
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
        left = {name: value for name, value in request.items() if name not in self._unsupported.fields}
        return {**left, **config.extra}

    def _may_mean_number(self, error: RefusedError, request: Mapping[str, Any]) -> bool:
        """Whether a refusal that names no field may mean the number of answers."""
        fields = [name for name in _FIELDS if name in request]
        return "n" in request and error.status in (400, 422, 501) and self._unsupported.field(error, fields) is None

    async def _ask_one(self, request: Mapping[str, Any]) -> Reply:
        alone = {name: value for name, value in request.items() if name != "n"}
        reply = read_completion(body_of(await self._wire.post(ENDPOINT, alone), self._mask), self._mask)
        self._leave_out_number()
        return reply

    def _leave_out_number(self) -> None:
        self.answers_per_request = 1
        self._unsupported.leave_out("n", "answers are asked for one by one")

    def _adapt(self, error: RefusedError, request: Mapping[str, Any]) -> None:
        """Go on without the field that the server refuses, where that means the same; else raise the error."""
        fields = [name for name in _FIELDS if name in request]
        field = self._unsupported.field(error, fields)
        if field == "n":
            self._leave_out_number()
        elif field == self._token_field:
            other = next(name for name in _LIMITS if name != field)
            if other not in self._unsupported.fields:
                self._unsupported.leave_out(field, f"{other} is sent instead")
                self._token_field = other
            else:
                self._unsupported.leave_out_limit(error, field)
        elif field in _LIMITS:
            pass  # another request has found out about it meanwhile
        elif field is not None:
            self._unsupported.leave_out_option(error, field)
        else:
            raise error

    def _part(self, part: str | bytes) -> dict[str, Any]:
        if isinstance(part, str):
            return {"type": "text", "text": part}
        url = f"data:image/png;base64,{base64.b64encode(part).decode()}"
        return {"type": "image_url", "image_url": {"url": url, "detail": self._config.detail}}

    def _headers(self, connection: Connection) -> dict[str, str]:
        headers = {}
        if connection.key is not None:
            azure = connection.address.is_azure
            headers = (
                {"api-key": connection.key.value} if azure else {"Authorization": f"Bearer {connection.key.value}"}
            )
        return {**headers, **OPENAI.payer_headers(connection.address)}


def read_completion(body: Mapping[str, Any], mask: Any) -> Reply:
    """The answers in a chat completion; anything may be anywhere."""
    choices = body.get("choices")
    if not isinstance(choices, list):
        raise AskError(f"The server's answer is no chat completion: {_told(body, mask)}", retry=True, doubtful=True)
    answers = tuple(_answer(choice, mask) for choice in _once(choices))
    counted = body.get("usage")
    counted = counted if isinstance(counted, Mapping) else {}
    sent, received = (token_count(counted.get(name)) for name in ("prompt_tokens", "completion_tokens"))
    if sent is None or received is None:
        return Reply(answers, None)
    details = counted.get("prompt_tokens_details")
    cached = token_count(details.get("cached_tokens")) if isinstance(details, Mapping) else None
    return Reply(answers, Usage(sent, received, min(cached or 0, sent)))


def _told(body: Mapping[str, Any], mask: Any) -> str:
    return shown(words_of(body) or f"it has {', '.join(map(str, body)) or 'no fields'}", mask)


def _once(choices: list[Any]) -> list[Any]:
    """Without what was delivered twice: a choice of the same number that says the same."""
    seen: list[Any] = []
    for choice in choices[:1000]:
        numbered = isinstance(choice, Mapping) and isinstance(choice.get("index"), int)
        if not (numbered and choice in seen):
            seen.append(choice)
    return seen


def _answer(choice: Any, mask: Any) -> Answer:
    choice = choice if isinstance(choice, Mapping) else {}
    message = choice.get("message")
    message = message if isinstance(message, Mapping) else {}
    text, refusal = content_text(message.get("content"))
    refusal = message.get("refusal") or refusal
    fault: Fault | None
    if error := choice.get("error"):
        fault = Fault(f"the server reports an error: {_told({'error': error}, mask)}")
    elif refusal:
        fault = Fault(f"the model refused: {shown(str(refusal), mask)[:200]}", refused=True)
    else:
        fault = finish_fault(choice.get("finish_reason"), "finish_reason", mask)
        if fault is None and not text.strip():
            fault = EMPTY
    return Answer.of(mask(fit(text)), fault)


class GPT4o(ServiceReward):
    """A model of OpenAI's as a judge: all votes in one request."""

    api_version = 2

    vendor = "openai"
    endpoint = ENDPOINT
    server = OPENAI

    @dataclass(frozen=True)
    class Config(ServiceConfig):
        model: str = "gpt-4o"
        """OpenAI's name of the model."""
        base_url: str | None = OPENAI.base_url
        """Address of the server."""
        api_key_env: str | None = None
        """Name of the environment variable that holds the key; null: OPENAI_API_KEY for OpenAI's own server, and no key
        for any other."""

    def make_provider(self, connection: Connection) -> Provider:
        votes = self.config.votes
        return OpenAIProvider(self.config, connection, token_field="max_completion_tokens", answers=votes)


class OpenAICompatible(ServiceReward):
    """Any server that speaks OpenAI's chat completions (vLLM, `transformers serve`, …) as a judge."""

    api_version = 2

    vendor = "openai-compatible"
    endpoint = ENDPOINT

    @dataclass(frozen=True)
    class Config(ServiceConfig):
        answers_per_request: Annotated[int, Range(least=1, most=1000)] = 1
        """Answers that one request asks for (`n`); vLLM knows it, `transformers serve` ignores it."""

    config: Config

    def make_provider(self, connection: Connection) -> Provider:
        answers = self.config.answers_per_request
        # The older name of this field is the one that every server knows.
        return OpenAIProvider(self.config, connection, token_field="max_tokens", answers=answers)
