"""Rewards of each step from a judge's sight of the way so far, in a form that does not change what is best.

Potential-based shaping (Ng, Harada, Russell 1999, theorem 1) with a potential that depends on time, too (Devlin and
Kudenko 2012), and is 0 at the start and at the end of an episode (Grześ 2017): F = gamma · Phi(s') - Phi(s). What the
steps add then cancels over the whole episode, whatever the judge thinks of its middle. A horizon that only cuts the
episode (`ppo` with `bootstrap: true`) is no end: the potential of its last frame goes along as `Reward.end_potential`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any

import torch
from torch import Tensor

from gymnast_core.config.ranges import Choices, Count, Fraction, NotNegative
from gymnast_core.errors import ConfigError
from gymnast_core.interfaces import Parts
from gymnast_core.learning import actions_that_count
from gymnast_core.money import total_usd
from gymnast_core.success import success_of
from gymnast_core.types import Reward, Rollout
from gymnast_world_rewards.around import KEY, AroundJudge, JudgeConfig, unscored

ENDS = ("value", "partial")


class Progress(AroundJudge):
    """Another judge's verdict at the end, and on the way what it thinks of the episode up to there.

    After every decision, the judge is shown the episode as if it ended there; its partial credit (or its value, where
    it gives none) is the potential. The rewards of an episode's steps add up to its value, for any judge. For
    optimizers that use rewards of each step: ppo, reinforce++. One that expects more after the horizon is told the
    potential there (`Reward.end_potential`): progress up to a cut is not taken back. The metric `judge_progress` is the
    mean potential.
    """

    api_version = 2

    @dataclass(frozen=True)
    class Config:
        judge: JudgeConfig = field(default_factory=JudgeConfig)
        """Who judges prefixes and ends: success-classifier, or any judge that looks at frames."""
        every: Count = 1
        """Decisions between two looks at the way."""
        weight: NotNegative = 1.0
        """Factor on the potential; 0 leaves the reward at the end alone."""
        discount: Fraction = 1.0
        """Gamma a decision; must be the optimizer's."""
        end: Annotated[str, Choices(*ENDS)] = "value"
        """What the episode is worth: the judge's "value", or its "partial" credit (which does change what is best)."""

    def __init__(self, config: Progress.Config | None = None) -> None:
        super().__init__(config if config is not None else self.Config(), "progress")
        self.config: Progress.Config = self.config

    def attach(self, parts: Parts) -> None:
        super().attach(parts)
        if parts.optimizer is None:
            return
        # One that knows no discount adds rewards up as they are.
        theirs = getattr(getattr(parts.optimizer, "config", None), "discount", 1.0)
        if theirs != self.config.discount:
            raise ConfigError(
                f"{KEY}.discount is {self.config.discount:g} and that of the optimizer {theirs:g}: with two discounts, "
                "rewards on the way change what is best. Give both the same."
            )

    @classmethod
    def looks_at(cls, config: Config, frames: int) -> Sequence[int]:
        """Any: a rollout is judged after every few of its decisions, whose length the policy decides."""
        return range(frames)

    def preflight(self, rollouts: int, frames: int) -> None:
        """As if every action were a decision."""
        self.judge.preflight(rollouts * max((frames - 1) // self.config.every, 1), frames)

    def score(self, rollouts: Sequence[Rollout]) -> list[Reward]:
        rewards = self.asked(rollouts)
        known = [row for row, reward in enumerate(rewards) if reward.value is not None]
        prefixes = [(row, n) for row in known for n in self._looks(rollouts[row], rewards[row])]
        seen = self.asked([prefix(rollouts[row], n) for row, n in prefixes])
        looks: dict[int, list[tuple[int, Reward]]] = {row: [] for row in known}
        for (row, n), reward in zip(prefixes, seen, strict=True):
            looks[row].append((n, reward))
        for row in known:
            rewards[row] = self._shaped(rollouts[row], rewards[row], looks[row])
        return rewards

    def _looks(self, rollout: Rollout, reward: Reward) -> range:
        """After how many decisions the judge looks: never at the start, nor at the end."""
        length = rollout.actions_NLA.shape[1]
        if self.config.weight == 0:
            return range(0)
        last = -(-actions_that_count(rollout, reward) // length)
        return range(self.config.every, last, self.config.every)

    def _shaped(self, rollout: Rollout, reward: Reward, looks: Sequence[tuple[int, Reward]]) -> Reward:
        assert reward.value is not None
        cost = total_usd((reward.cost_usd, *(look.cost_usd for _, look in looks)))
        failed = next((look for _, look in looks if look.error is not None), None)
        if failed is not None:
            error = f"not judged on the way: {failed.error}"
            return Reward(None, error=error, cost_usd=cost, votes=failed.votes, abstained=failed.abstained)
        value = reward.value
        if self.config.end == "partial":
            if reward.partial is None:
                error = f"{type(self.judge).__name__} gives no partial credit; set {KEY}.end=value."
                return unscored(replace(reward, cost_usd=cost), error)
            value = reward.partial
            reward = replace(reward, success=success_of(reward))
        decisions, length = rollout.actions_NLA.shape[:2]
        phi_N = torch.zeros(decisions + 1, dtype=torch.float64)
        for n, look in looks:
            phi_N[n:] = _credit(look)  # until the next look
        end = actions_that_count(rollout, reward)
        steps_S = shaping(self.config.weight * phi_N, length, end, self.config.discount)
        if reward.step_values_S is not None and self.config.end == "value":
            steps_S += reward.step_values_S.double()
        else:
            steps_S[end - 1] += value
        at_the_end = self.config.weight * _credit(reward)
        numbers = dict(reward.numbers)
        if looks:
            numbers["progress"] = sum(_credit(look) for _, look in looks) / len(looks)
        on_the_way = " ".join(f"{_credit(look):.2f}" for _, look in looks)
        rationale = f"{reward.rationale}; on the way {on_the_way}".strip("; ") if looks else reward.rationale
        steps: dict[str, Any] = {"step_values_S": steps_S.float(), "end_potential": at_the_end}
        return replace(reward, value=value, **steps, numbers=numbers, rationale=rationale, cost_usd=cost)


def shaping(phi_N: Tensor, length: int, end: int, discount: float) -> Tensor:
    """discount · Phi(n + 1) - Phi(n) of each decision n, given at its last action that counts, (S,).

    `phi_N` holds the potential before each of N decisions and after the last; what it is at the start and at the
    episode's end (`end` actions) is taken to be 0. So sum over n of discount^n times the rewards is 0.
    """
    decisions = len(phi_N) - 1
    last = -(-end // length)
    phi_N = phi_N.clone()
    phi_N[0] = 0.0
    phi_N[last:] = 0.0
    gains_N = discount * phi_N[1:] - phi_N[:-1]
    steps_S = torch.zeros(decisions * length, dtype=phi_N.dtype)
    for n in range(last):
        steps_S[min((n + 1) * length, end) - 1] = gains_N[n]
    return steps_S


def prefix(rollout: Rollout, decisions: int) -> Rollout:
    """The rollout as if it had ended after so many of its decisions."""
    actions = decisions * rollout.actions_NLA.shape[1]
    tokens, proprio, outcome = rollout.tokens_NLD, rollout.proprio_TP, rollout.outcome_S
    return replace(
        rollout,
        frames_TVHWC=rollout.frames_TVHWC[: actions + 1],
        actions_NLA=rollout.actions_NLA[:decisions],
        log_prob_NLD=rollout.log_prob_NLD[:decisions],
        tokens_NLD=None if tokens is None else tokens[:decisions],
        proprio_TP=None if proprio is None else proprio[: actions + 1],
        outcome_S=None if outcome is None else outcome[:actions],
    )


def _credit(reward: Reward) -> float:
    assert reward.value is not None
    return reward.value if reward.partial is None else reward.partial
