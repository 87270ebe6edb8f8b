"""Dual-noise verification: a success must come back when the same actions are imagined again from other noise.

RAW-Dream (arXiv 2605.12334): a world model that invents a success from its noise alone invents another course from
other noise, so that reward cannot be earned from it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated

from gymnast_core.config.ranges import Choices, Count, Fraction
from gymnast_core.errors import ConfigError
from gymnast_core.interfaces import Parts
from gymnast_core.money import total_usd
from gymnast_core.success import success_of
from gymnast_core.types import Reward, Rollout
from gymnast_world_rewards.around import KEY, AroundJudge, ImaginedConfig, Imagining, JudgeConfig, no_start, unscored

CONSEQUENCES = ("failure", "unscored")


class Twice(AroundJudge):
    """Another judge's verdict, whose successes are imagined and judged again from other noise.

    Failures are believed at once and cost nothing. The metric `judge_came_back` is the share of the successes looked at
    again that came back, `judge_imagined_again` how often a rollout was imagined again on average; every rationale says
    what was seen.
    """

    api_version = 2

    @dataclass(frozen=True)
    class Config(ImaginedConfig):
        judge: JudgeConfig = field(default_factory=JudgeConfig)
        """Who judges both times."""
        success_above: Fraction = 0.5
        """Values above it are successes, which have to come back."""
        rounds: Count = 1
        """How often they are imagined again, each time from noise of its own."""
        needed: Count | None = None
        """In how many of those rounds a success has to come back; null: in all."""
        otherwise: Annotated[str, Choices(*CONSEQUENCES)] = "failure"
        """What a success is that does not come back: a "failure" (the reward 0, so that what leads to it is unlearned),
        or "unscored" (an error, from which nothing is learned; such rollouts count for loop.max_error_rate)."""

    def __init__(self, config: Twice.Config | None = None) -> None:
        super().__init__(config if config is not None else self.Config(), "twice")
        self.config: Twice.Config = self.config
        needed = self.config.needed
        if needed is not None and needed > self.config.rounds:
            raise ConfigError(f"{KEY}.needed is {needed} of {KEY}.rounds={self.config.rounds}; it cannot be more.")
        self._imagining = Imagining(self.config, "twice")

    def attach(self, parts: Parts) -> None:
        super().attach(parts)
        self._imagining.attach(parts)

    def preflight(self, rollouts: int, frames: int) -> None:
        """As if every rollout succeeded."""
        self.judge.preflight(rollouts * (1 + self.config.rounds), frames)

    def close(self) -> None:
        super().close()
        self._imagining.close()

    def score(self, rollouts: Sequence[Rollout]) -> list[Reward]:
        rewards = self.asked(rollouts)
        rows = [row for row, reward in enumerate(rewards) if self._is_success(reward)]
        for row in [row for row in rows if no_start(rollouts[row])]:
            rewards[row] = unscored(rewards[row], no_start(rollouts[row]) or "")
            rows.remove(row)
        chosen = [rollouts[row] for row in rows]
        looks: list[list[Reward]] = []
        if chosen:
            looks = [self.asked(self._imagining.again(chosen, number)) for number in range(self.config.rounds)]
        for place, row in enumerate(rows):
            rewards[row] = self._verified(rewards[row], [look[place] for look in looks])
        return [
            replace(reward, numbers={**reward.numbers, "imagined_again": float(self.config.rounds * (row in rows))})
            for row, reward in enumerate(rewards)
        ]

    def _is_success(self, reward: Reward) -> bool:
        success = success_of(reward)
        return success is not None and success > self.config.success_above

    def _verified(self, first: Reward, again: Sequence[Reward]) -> Reward:
        """The first verdict, after the others were heard."""
        config = self.config
        cost = total_usd((first.cost_usd, *(reward.cost_usd for reward in again)))
        first = replace(first, cost_usd=cost)
        back = sum(self._is_success(reward) for reward in again)
        unknown = [reward for reward in again if reward.error is not None]
        needed = config.needed or config.rounds
        if back < needed <= back + len(unknown):
            said = f"its success was imagined again, and {len(unknown)} of {config.rounds} could not be judged"
            abstained = all(reward.abstained for reward in unknown)
            return replace(unscored(first, f"{said}: {unknown[0].error}"), numbers=first.numbers, abstained=abstained)
        came_back = back >= needed
        said = f"the success came back in {back} of {config.rounds} other imaginations"
        rationale = f"{first.rationale}; {said}" if first.rationale else said
        numbers = {**first.numbers, "came_back": float(came_back)}
        if came_back:
            return replace(first, rationale=rationale, numbers=numbers)
        if config.otherwise == "unscored":
            return replace(unscored(first, f"Not believed: {rationale}."), numbers=numbers)
        lowest = min([r.partial for r in (first, *again) if r.partial is not None], default=None)
        return replace(
            first, value=0.0, success=None, step_values_S=None, finish_step=None, partial=lowest, rationale=rationale,
            numbers=numbers,
        )  # fmt: skip
