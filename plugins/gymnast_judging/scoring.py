"""Putting stored or labelled rollouts to a judge, batch by batch, the next one while the last is judged."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from gymnast_core.closing import closing
from gymnast_core.config import ComponentConfig
from gymnast_core.errors import GymnastError
from gymnast_core.interfaces import Parts, RewardModel
from gymnast_core.plugins.registry import registries
from gymnast_core.training.judge import judge as ask
from gymnast_core.training.judge import submit
from gymnast_core.types import Reward, Rollout

Item = TypeVar("Item")


class JudgeFailing(GymnastError):
    """Too much could not be judged; the work stops and can be resumed."""


@dataclass(frozen=True)
class Asked(Generic[Item]):
    """A batch: rollouts, and what the caller knows of each one."""

    items: Sequence[Item]
    rollouts: Sequence[Rollout]


@contextmanager
def built(part: ComponentConfig, key: str, parts: Parts | None = None) -> Iterator[RewardModel]:
    """A reward model of its own, introduced to the `parts` of a run, and closed in the end."""
    with closing(registries().reward_models.build(part.name, part.args, key=key)) as judge:
        judge.attach(replace(parts or Parts(), reward_model=judge))
        yield judge


def judge_label(judge: ComponentConfig) -> str:
    """A name for a judge with its arguments: other arguments, other judgements."""
    digest = hashlib.sha256(json.dumps(judge.args, sort_keys=True, default=str).encode()).hexdigest()
    return f"{judge.name}-{digest[:8]}"


def judged(
    judge: RewardModel, batches: Iterable[Asked[Item]], *, rescore: int
) -> Iterator[tuple[Asked[Item], list[Reward]]]:
    """Each batch with its rewards, those that are errors asked for anew up to `rescore` times."""
    waiting: tuple[Asked[Item], Future[list[Reward]]] | None = None
    for batch in batches:
        submitted = batch, submit(judge, batch.rollouts)
        if waiting is not None:
            yield _finished(judge, *waiting, rescore)
        waiting = submitted
    if waiting is not None:
        yield _finished(judge, *waiting, rescore)


def _finished(
    judge: RewardModel, asked: Asked[Item], scored: Future[list[Reward]], rescore: int
) -> tuple[Asked[Item], list[Reward]]:
    return asked, ask(judge, asked.rollouts, scored, again=rescore)


class ErrorLimit:
    """Stops when more than a share of the judgements so far are errors, those of earlier processes included."""

    def __init__(self, limit: float, name: str, command: str, judged: int = 0) -> None:
        """`judged` have a verdict already; only the others are asked for now."""
        self._limit, self._name, self._command = limit, name, command
        self._n, self._errors = judged, 0

    def add(self, rewards: Sequence[Reward]) -> None:
        """Raises `JudgeFailing`."""
        errors = [reward.error for reward in rewards if reward.error is not None]
        self._n, self._errors = self._n + len(rewards), self._errors + len(errors)
        if self._errors > self._limit * self._n:
            raise JudgeFailing(
                f"{self._name!r} could not judge {self._errors} of {self._n} rollouts (limit {self._limit:g}). Last "
                f"error: {errors[-1]} When it works again: {self._command}"
            )
