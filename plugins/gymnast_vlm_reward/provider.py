"""What the engine needs from a vendor: ask once, say what came back, never retry, never guess."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from gymnast_core.errors import GymnastError
from gymnast_core.types import Task
from gymnast_vlm_reward.frames import FramesConfig, digest
from gymnast_vlm_reward.prices import Price, Usage
from gymnast_vlm_reward.prompts import Prompt
from gymnast_vlm_reward.store import Answer

Parts = list[str | bytes]
"""A user message: texts and PNG files in order."""


@dataclass(frozen=True, eq=False)
class Question:
    """One rollout to be judged. Images are encoded when they are sent, so that thousands may wait at little memory."""

    task: Task
    shown_SHWC: Tensor
    """uint8 RGB, the frames shown."""
    indices: Sequence[int]
    """Which of the rollout's frames they are."""
    frames: FramesConfig
    prompt: Prompt
    rubrics: Mapping[str, str]
    schema: bool
    """Whether the answer is asked for as structured output."""
    asked_of: Mapping[str, object]
    """Model and parameters that the answer depends on."""

    @property
    def fault(self) -> str | None:
        """Why nobody could answer it; None if somebody might."""
        shape, dtype = tuple(self.shown_SHWC.shape), self.shown_SHWC.dtype
        if len(shape) != 4 or shape[-1] != 3 or 0 in shape or dtype != torch.uint8:
            return f"The rollout shows nothing: its frames are {shape} {dtype}, not uint8 (T, H, W, 3) with T >= 1."
        return None if self.task.instruction.strip() else "The rollout's task has no instruction to judge it by."

    @cached_property
    def texts(self) -> tuple[str, str]:
        """Before and after the frames."""
        return self.prompt.ask(self.task, self.rubrics, schema=self.schema)

    @cached_property
    def key(self) -> str:
        """The question's name in the cache: SHA-256 of frames, texts, model and parameters."""
        content = {
            "frames": digest(self.shown_SHWC),
            "indices": list(self.indices),
            "size": self.frames.size,
            "prompt": [self.prompt.version, self.prompt.system, *self.texts],
            "schema": self.schema,
            **self.asked_of,
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def parts(self) -> Parts:
        """The user message. Encoding takes a while: call it once, in a thread."""
        before, after = self.texts
        images = self.frames.encode(self.shown_SHWC)
        parts: Parts = [before]
        for position, (index, image) in enumerate(zip(self.indices, images, strict=True), start=1):
            parts += [self.prompt.number(position, len(images), index), image]
        return [*parts, after]

    def input_tokens(self, price: Price, detail: str) -> int:
        """An upper bound of the input's tokens."""
        height, width = self.shown_SHWC.shape[1:3]
        each = price.tokens_of_image(*self.frames.scaled(width, height), detail)
        numbers = len(self.prompt.number(99, 99, 999))
        text = self.prompt.system + "".join(self.texts)
        plain = sum(letter.isascii() for letter in text)
        # Three letters a token is more than English needs, and of other scripts no byte makes more than one; the rest
        # are the schema, the message's frame, and what a vendor adds of its own for a tool (Anthropic: about 350).
        others = len(text.encode("utf-8", "replace")) - plain
        return each * len(self.indices) + (plain + numbers * len(self.indices)) // 3 + others + 600


@dataclass(frozen=True)
class Reply:
    """What one request brought."""

    answers: tuple[Answer, ...]
    usage: Usage | None
    """None if the server did not count."""


class AskError(GymnastError):
    """A request that brought no answer. The message is safe to show: it never holds a key."""

    def __init__(
        self,
        message: str,
        *,
        retry: bool = False,
        fatal: bool = False,
        stray: bool = False,
        doubtful: bool = False,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.retry = retry
        """Whether the same request may succeed later."""
        self.fatal = fatal
        """Whether every other request would fail the same way (a wrong key, no money left)."""
        self.stray = stray
        """Whether that may be so of this one only, if others are answered."""
        self.doubtful = doubtful
        """Whether the vendor may have billed it all the same."""
        self.retry_after = retry_after
        """Seconds that the server asks to wait."""


class Provider(ABC):
    """One model behind one kind of interface."""

    answers_per_request: int = 1
    """How many independent answers one request may ask for."""

    @abstractmethod
    async def ask(self, question: Question, parts: Parts, count: int, first: int) -> Reply:
        """Ask for `count` answers, the ones numbered `first` and on; `parts` are the question's, made once.

        Raises `AskError`, and nothing else.
        """

    async def close(self) -> None:  # noqa: B027 - most have nothing to release
        """Release connections."""
