"""Partial credit as the reward that is learned from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from gymnast_core.config.ranges import Fraction
from gymnast_core.success import success_of
from gymnast_core.types import Reward, Rollout
from gymnast_world_rewards.around import KEY, AroundJudge, JudgeConfig, unscored


class PartialCredit(AroundJudge):
    """A mixture of another judge's value and its partial credit, e.g. the probability behind a thresholded verdict.

    Groups whose rollouts all failed then still say which failed by less (and are learned from, if the optimizer's
    `accuracy_bounds` begin at 0). What is best may move with it: whatever the
    judge gives credit for is learned, whether or not it leads to success. Reports go on to call the judge's value
    success; the metric `judge_reward` is the mean of what is learned from, `judge_success` that of the judge's value.
    """

    api_version = 2

    @dataclass(frozen=True)
    class Config:
        judge: JudgeConfig = field(default_factory=JudgeConfig)
        """Who judges, and gives partial credit."""
        share: Fraction = 0.5
        """Of the partial credit in the reward; the rest is the judge's value."""

    def __init__(self, config: PartialCredit.Config | None = None) -> None:
        super().__init__(config if config is not None else self.Config(), "partial-credit")
        self.config: PartialCredit.Config = self.config

    def score(self, rollouts: Sequence[Rollout]) -> list[Reward]:
        return [self._mixed(reward) for reward in self.asked(rollouts)]

    def _mixed(self, reward: Reward) -> Reward:
        if reward.value is None:
            return reward
        if reward.partial is None:
            error = f"{type(self.judge).__name__} gives no partial credit; use it without {KEY}.share, by itself."
            return unscored(reward, error)
        share = self.config.share
        success = success_of(reward)
        value = (1 - share) * reward.value + share * reward.partial
        numbers = {**reward.numbers, "success": reward.value, "reward": value}
        # Rewards of steps were those of the judge's value.
        return replace(
            reward, value=value, success=success if share else reward.success, step_values_S=None, numbers=numbers
        )
