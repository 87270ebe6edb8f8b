"""What every VLM judge can be told, and the additions for judges behind a network."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from gymnast_core.errors import ConfigError, unknown_name
from gymnast_vlm_reward.engine import RetryConfig
from gymnast_vlm_reward.frames import FramesConfig
from gymnast_vlm_reward.votes import TIES

KEY = "reward_model.args"
"""Where errors say that these values stand."""


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
    votes: int = 5
    """Independent answers; the most frequent score wins."""
    redo: int = 2
    """Further answers asked for, per rollout, in place of refused, cut off or unreadable ones."""
    tie: str = "unknown"
    """What equal votes count as: "unknown" (an error on that rollout), "failure" or "success"."""
    temperature: float | None = 1.0
    """Sampling temperature; null leaves it to the model (some accept none). 0 makes all votes alike."""
    max_tokens: int = 300
    """Longest answer, in tokens; one that is cut off does not count."""
    seed: int = 0
    """Seed of what is drawn here: jitter of waiting times, and a local model's samples."""
    cache: str = "~/.cache/gymnast/vlm_reward.sqlite"
    """File of answers, charges and rate limits; processes that share it never pay for the same answer twice."""
    namespace: str = ""
    """Part of the cache's key: change it when the model behind an unchanged name has changed."""

    def check(self) -> None:
        """Raise `ConfigError` for values that cannot be used."""
        self.frames.check(f"{KEY}.frames")
        for name, least in (("votes", 1), ("redo", 0), ("max_tokens", 1)):
            if getattr(self, name) < least:
                raise ConfigError(f"{KEY}.{name} is {getattr(self, name)}; it must be at least {least}.")
        if self.tie not in TIES:
            raise ConfigError(f"{KEY}.tie: {unknown_name('way to count a tie', self.tie, TIES)}")
        if self.temperature is not None and not 0 <= self.temperature < math.inf:
            raise ConfigError(f"{KEY}.temperature is {self.temperature}; it must be 0 or more, or null.")


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
    detail: str = "low"
    """How closely OpenAI's models look: "low" loses nothing up to 512 pixels, "high" costs more. Others ignore it."""
    extra: dict[str, Any] = field(default_factory=dict)
    """Further fields of every request, sent as they are."""
    answer_tokens: int = 120
    """Tokens of a typical answer, for estimates."""
    max_usd: float | None = None
    """Hard budget in USD: all that was ever spent under `account` in the cache's file stays below it. Null: none."""
    account: str = "default"
    """Whose budget it is."""
    prices: dict[str, Any] = field(default_factory=dict)
    """Prices over those in prices.yaml, e.g. {my-model: {input: 2.5, output: 10}} in USD per million tokens."""
    concurrency: int = 32
    """Requests in flight."""
    requests_per_minute: float | None = None
    """Rate limit, shared by all processes that use this model, key and cache file; null: none."""
    tokens_per_minute: float | None = None
    """Likewise, of input and output tokens together."""
    retry: RetryConfig = field(default_factory=RetryConfig)
    """When and how often failed requests are repeated."""
    progress_s: float = 10.0
    """Seconds between progress messages."""

    def check(self) -> None:
        super().check()
        if not self.model:
            raise ConfigError(f"{KEY}.model is not set: name the model to ask, e.g. {KEY}.model=gpt-4o.")
        if self.detail not in ("low", "high"):
            raise ConfigError(f"{KEY}.detail: {unknown_name('detail', self.detail, ('low', 'high'))}")
        for name in ("max_usd", "requests_per_minute", "tokens_per_minute"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise ConfigError(f"{KEY}.{name} is {value}; it must be more than 0, or null for no limit.")
        retry = self.retry
        positive = {
            "concurrency": self.concurrency,
            "progress_s": self.progress_s,
            "retry.attempts": retry.attempts,
            "retry.timeout_s": retry.timeout_s,
        }
        for name, number in positive.items():
            if number <= 0:
                raise ConfigError(f"{KEY}.{name} is {number}; it must be more than 0.")
        if min(retry.base_s, retry.max_s, retry.max_retry_after_s) < 0:
            raise ConfigError(f"{KEY}.retry holds a negative waiting time.")
