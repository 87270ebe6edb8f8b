"""What every VLM judge can be told, and the additions for judges behind a network."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any

from gymnast_core.config.ranges import Choices, Range, Seed, check_values
from gymnast_core.errors import ConfigError
from gymnast_vlm_reward.engine import RetryConfig
from gymnast_vlm_reward.frames import FramesConfig
from gymnast_vlm_reward.votes import TIES

KEY = "reward_model.args"
"""Where errors say that these values stand."""

_OWN = (
    "model", "messages", "system", "n", "max_tokens", "max_completion_tokens", "temperature", "response_format",
    "stream", "tools", "tool_choice",
)  # fmt: skip
"""Fields of a request that `extra` cannot set: what an answer costs, and how it is read, depends on them."""
_SECRETS = ("apikey", "authorization", "password", "secret", "accesstoken", "clientsecret", "bearer", "credential")

Rate = Annotated[float, Range(above=0, most=1e9)]
"""How many a minute."""


@dataclass(frozen=True)
class JudgeConfig:
    """Of all VLM judges."""

    prompt: str = "binary-v1"
    """What the judge is asked: "binary-v1" (0 or 1) or "partial-v1" (0, 0.5 or 1, with the task's own criteria)."""
    rubrics: dict[str, str] = field(default_factory=dict)
    """Rubrics that replace the prompt's own, by task id or instruction; {criteria} stands for the task's criteria."""
    camera: str | None = None
    """Name of the camera whose frames are shown; null: the main one."""
    frames: FramesConfig = field(default_factory=FramesConfig)
    """Which frames are shown."""
    votes: Annotated[int, Range(least=1, most=1000)] = 5
    """Independent answers; the most frequent score wins."""
    redo: Annotated[int, Range(least=0, most=1000)] = 2
    """Further answers asked for, per rollout, in place of refused, cut off or unreadable ones."""
    tie: Annotated[str, Choices(*TIES)] = "unknown"
    """What equal votes count as: "unknown" (an error on that rollout), "failure" or "success"."""
    temperature: Annotated[float, Range(least=0, most=100)] | None = 1.0
    """Sampling temperature; null leaves it to the model (some accept none). 0 makes all votes alike."""
    max_tokens: Annotated[int, Range(least=1, most=10**6)] = 300
    """Longest answer, in tokens; one that is cut off does not count."""
    seed: Seed = 0
    """Seed of what is drawn here: jitter of waiting times, and a local model's samples."""
    cache: str = "~/.cache/gymnast/vlm_reward.sqlite"
    """File of answers, charges and rate limits; processes that share it never pay for the same answer twice."""
    namespace: str = ""
    """Part of the cache's key: change it when the model behind an unchanged name has changed."""

    def check(self) -> None:
        """Raise `ConfigError` for values that cannot be used."""
        self.frames.check(f"{KEY}.frames")
        check_values(type(self), asdict(self), KEY)


@dataclass(frozen=True)
class ServiceConfig(JudgeConfig):
    """Of judges behind a network."""

    model: str = ""
    """The vendor's name of the model."""
    base_url: str | None = None
    """Address of the server, e.g. http://localhost:8000/v1; null: the vendor's own."""
    api_key_env: str | None = None
    """Name of the environment variable that holds the key; null: the server wants none. Keys stand nowhere else."""
    structured: bool = True
    """Ask for structured output (JSON schema, tool call); false: for a last line "Final Score: X"."""
    detail: Annotated[str, Choices("low", "high")] = "low"
    """How closely OpenAI's models look: "low" loses nothing up to 512 pixels, "high" costs more. Others ignore it."""
    extra: dict[str, Any] = field(default_factory=dict)
    """Further fields of every request, sent as they are; none that has an option here, and no key."""
    answer_tokens: Annotated[int, Range(least=1, most=10**6)] = 120
    """Tokens of a typical answer, for estimates."""
    max_usd: Annotated[float, Range(above=0, most=1e9)] | None = None
    """Hard budget in USD: all that was ever spent under `account` in the cache's file stays below it. Null: none."""
    account: str = "default"
    """Whose budget it is."""
    prices: dict[str, Any] = field(default_factory=dict)
    """Prices over those in prices.yaml, e.g. {my-model: {input: 2.5, output: 10}} in USD per million tokens."""
    concurrency: Annotated[int, Range(least=1, most=10_000)] = 32
    """Requests in flight."""
    requests_per_minute: Rate | None = None
    """Rate limit, shared by all processes that use this model, key and cache file; null: none."""
    tokens_per_minute: Rate | None = None
    """Likewise, of input and output tokens together."""
    retry: RetryConfig = field(default_factory=RetryConfig)
    """When and how often failed requests are repeated."""
    progress_s: Annotated[float, Range(above=0, most=86400)] = 10.0
    """Seconds between progress messages."""
    probe: bool = True
    """Ask the model one small question before a run imagines anything, to see that it answers; one that it answered in
    the last hour is not asked again."""

    def check(self) -> None:
        super().check()
        if not self.model:
            raise ConfigError(f"{KEY}.model is not set: name the model to ask, e.g. {KEY}.model=gpt-4o.")
        _check_extra(self.extra)


def _check_extra(extra: Mapping[str, Any]) -> None:
    """Raise `ConfigError`, which shows no value, for fields that are not the user's to set, and for keys."""
    for name in extra:
        if name in _OWN:
            raise ConfigError(f"{KEY}.extra.{name} cannot be set: the judge sets it, as its options say.")
    for path, name in _names(extra, "extra"):
        if name.lower().replace("-", "").replace("_", "") in _SECRETS:
            raise ConfigError(
                f"{KEY}.{path} looks like a key, and configs are written to run folders. Put keys into an environment "
                f"variable and name that in {KEY}.api_key_env."
            )


def _names(value: Any, path: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for name, part in value.items():
            yield f"{path}.{name}", str(name)
            yield from _names(part, f"{path}.{name}")
    elif isinstance(value, list | tuple):
        for i, part in enumerate(value):
            yield from _names(part, f"{path}[{i}]")
