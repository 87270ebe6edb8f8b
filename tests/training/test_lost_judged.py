"""Episodes that the world lost are never shown to a judge: their rewards are errors, and nobody asks again."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace

import pytest
import torch

from gymnast_core.errors import ContractError
from gymnast_core.interfaces import RewardModel
from gymnast_core.testing.making import make_rollouts, make_tasks
from gymnast_core.training.judge import judge, submit
from gymnast_core.types import Reward, Rollout


class Seen(RewardModel):
    """Success where the first action is positive; remembers whom it was asked about."""

    api_version = 2

    @dataclass(frozen=True)
    class Config:
        pass

    def __init__(self, fails: int = 0, forgets: bool = False) -> None:
        self.config, self.fails, self.forgets = self.Config(), fails, forgets
        self.asked: list[list[str]] = []

    def score(self, rollouts: Sequence[Rollout]) -> list[Reward]:
        self.asked.append([rollout.task.id for rollout in rollouts])
        assert all(rollout.error is None for rollout in rollouts)
        if len(self.asked) <= self.fails:
            return [Reward(None, error="no answer", cost_usd=0.5) for _ in rollouts]
        rewards = [Reward(float(rollout.group)) for rollout in rollouts]
        return rewards[1:] if self.forgets else rewards


def episodes(*lost: bool) -> list[Rollout]:
    (rollout, *_) = make_rollouts(make_tasks(1, 8))
    made = []
    for place, gone in enumerate(lost):
        task = replace(rollout.task, id=str(place))
        error = "the table collapsed" if gone else None
        made.append(replace(rollout, task=task, group=place % 2, error=error, outcome_S=torch.ones(rollout.horizon)))
    return made


LOST = "The world lost this episode: the table collapsed"


def test_their_rewards_are_errors() -> None:
    model = Seen()
    rewards = judge(model, episodes(False, True, True, False))
    assert [reward.value for reward in rewards] == [0.0, None, None, 1.0]
    assert [reward.error for reward in rewards] == [None, LOST, LOST, None]
    assert model.asked == [["0", "3"]]


def test_nobody_asks_again_about_them() -> None:
    model = Seen(fails=1)
    rollouts = episodes(True, False)
    rewards = judge(model, rollouts, submit(model, rollouts), again=3)
    assert [reward.value for reward in rewards] == [None, 1.0]
    assert rewards[1].cost_usd == 0.5 and model.asked == [["1"], ["1"]]


def test_a_judge_that_is_left_with_nothing_is_not_asked() -> None:
    model = Seen()
    assert [reward.error for reward in judge(model, episodes(True, True), again=2)] == [LOST, LOST]
    assert model.asked == []
    assert judge(model, []) == []


def test_a_broken_contract_is_heard_of() -> None:
    model = Seen(forgets=True)
    with pytest.raises(ContractError, match="returned 1 rewards for 2 rollouts"):
        judge(model, episodes(False, True, False))


def test_a_slow_judge_is_waited_for() -> None:
    class Slow(Seen):
        """Answers when told."""

        def submit(self, rollouts: Sequence[Rollout]) -> Future[list[Reward]]:
            self.answer: Future[list[Reward]] = Future()
            self.waiting = self.score(rollouts)
            return self.answer

    model = Slow()
    rollouts = episodes(True, False)
    future = submit(model, rollouts)
    assert not future.done()
    model.answer.set_result(model.waiting)
    assert [reward.value for reward in future.result(timeout=5)] == [None, 1.0]
    failing = submit(model, rollouts)
    model.answer.set_exception(OSError("gone"))
    with pytest.raises(OSError, match="gone"):
        failing.result(timeout=5)
