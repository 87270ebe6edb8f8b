"""Several judges, one verdict: any reward models, from any vendor, by majority or unanimously."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Annotated, Any

from gymnast_core.config.ranges import Choices, check_values
from gymnast_core.config.typed import typed
from gymnast_core.errors import ConfigError
from gymnast_core.futures import when_all
from gymnast_core.interfaces import Parts, RewardModel
from gymnast_core.money import total_usd
from gymnast_core.plugins.registry import registries
from gymnast_core.types import Reward, Rollout, Task
from gymnast_vlm_reward.config import KEY
from gymnast_vlm_reward.votes import TIES, decide

RULES = ("majority", "unanimous")


@dataclass(frozen=True)
class MemberConfig:
    """One judge."""

    name: str = ""
    """Name of the reward model, e.g. "gpt-4o"."""
    args: dict[str, Any] = field(default_factory=dict)
    """Its arguments."""


class Ensemble(RewardModel):
    """The verdict of several reward models.

    `partial` is the mean of the members' values; the rationale lists what each said and the share that agrees with the
    verdict. A member that could not judge is a missing vote: it must not be able to change the verdict, else there is
    none. Members judge success: scores of other scales are no votes.
    """

    api_version = 2

    @dataclass(frozen=True)
    class Config:
        judges: list[MemberConfig] = field(default_factory=list)
        """Two or more reward models, e.g. [{name: gpt-4o}, {name: claude, args: {votes: 3}}]."""
        rule: Annotated[str, Choices(*RULES)] = "majority"
        """What decides: "majority" (the most frequent value) or "unanimous" (all agree)."""
        tie: Annotated[str, Choices(*TIES)] = "unknown"
        """What a tie, or with "unanimous" any disagreement, counts as: "unknown" (an error), "failure", "success"."""

    def __init__(self, config: Ensemble.Config | None = None) -> None:
        self.config = config = config if config is not None else self.Config()
        if len(config.judges) < 2:
            raise ConfigError(f"{KEY}.judges names {len(config.judges)} reward models; an ensemble needs two or more.")
        check_values(self.Config, {"rule": config.rule, "tie": config.tie}, KEY)
        build = registries().reward_models.build
        self.judges = [
            build(member.name, member.args, key=f"{KEY}.judges[{i}]") for i, member in enumerate(config.judges)
        ]
        if scoring := [
            part.name for part, judge in zip(config.judges, self.judges, strict=True) if judge.kind != "success"
        ]:
            raise ConfigError(
                f"{KEY}.judges: {scoring[0]!r} does not say how successful a rollout is but gives it a score, which is "
                "no vote. Leave it out, or use it alone."
            )
        # Members may be of one kind: what tells them apart is their model or their place.
        self.labels = [f"{member.name} #{i + 1}" for i, member in enumerate(config.judges)]
        self._threads: dict[int, ThreadPoolExecutor] = {}

    @classmethod
    def looks_at(cls, config: Config, frames: int) -> Sequence[int]:
        """What any of its members looks at."""
        places: set[int] = set()
        for number, member in enumerate(config.judges):
            judge = registries().reward_models.load(member.name)
            own: Any = typed(judge.Config, member.args, f"{KEY}.judges[{number}].args")
            places.update(judge.looks_at(own, frames))
        return sorted(places)

    def attach(self, parts: Parts) -> None:
        for judge in self.judges:
            judge.attach(parts)

    def objection(self, task: Task) -> str | None:
        """That of a member, if the others cannot decide without those that object."""
        found = [objection for judge in self.judges if (objection := judge.objection(task)) is not None]
        needed = self.config.rule == "unanimous" or len(self.judges) - len(found) <= len(found)
        return found[0] if found and needed else None

    def state_dict(self) -> dict[str, Any]:
        return {"judges": [judge.state_dict() for judge in self.judges]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for judge, part in zip(self.judges, state["judges"], strict=True):
            judge.load_state_dict(part)

    def score(self, rollouts: Sequence[Rollout]) -> list[Reward]:
        future = self.submit(rollouts)
        try:
            return future.result()
        except BaseException:  # Ctrl-C, above all
            future.cancel()
            raise

    def submit(self, rollouts: Sequence[Rollout]) -> Future[list[Reward]]:
        """Begin to score with all judges at once; `cancel()` of the future stops them."""
        scored = [self._start(position, rollouts) for position in range(len(self.judges))]
        return when_all(scored, self._combined)

    def _start(self, position: int, rollouts: Sequence[Rollout]) -> Future[list[Reward]]:
        judge = self.judges[position]
        if type(judge).submit is not RewardModel.submit:
            return judge.submit(rollouts)
        # One that computes in the call must hold up neither the others nor the caller; it does one batch at a time.
        if position not in self._threads:
            self._threads[position] = ThreadPoolExecutor(1, thread_name_prefix="ensemble")
        return self._threads[position].submit(judge.score, rollouts)

    def preflight(self, rollouts: int, frames: int) -> None:
        for judge in self.judges:
            judge.preflight(rollouts, frames)

    def close(self) -> None:
        for judge in self.judges:
            judge.close()
        for thread in self._threads.values():
            thread.shutdown(wait=True, cancel_futures=True)
        self._threads.clear()

    def _combined(self, rewards_by_judge: Sequence[Sequence[Reward]]) -> list[Reward]:
        return [self.combine(rewards) for rewards in zip(*rewards_by_judge, strict=True)]

    def combine(self, rewards: Sequence[Reward]) -> Reward:
        """The ensemble's reward from those of its members for one rollout, in the order of `judges`."""
        cost = total_usd(reward.cost_usd for reward in rewards)
        values = [reward.value for reward in rewards if reward.value is not None]
        decision = decide(
            values, len(rewards) - len(values), tie=self.config.tie, unanimous=self.config.rule == "unanimous"
        )
        said = [
            f"{label}: {reward.error if reward.value is None else f'{reward.value:g} {reward.rationale}'.strip()}"
            for label, reward in zip(self.labels, rewards, strict=True)
        ]
        if decision.value is None:
            heard = all(reward.abstained for reward in rewards if reward.value is None)
            abstained = decision.abstained or (not values and heard)
            error = f"{decision.reason} ({'; '.join(said)})"
            return Reward(None, error=error, cost_usd=cost, votes=values, abstained=abstained)
        agreeing = sum(value == decision.value for value in values)
        votes = " ".join(f"{value:g}" for value in values)
        rationale = f"{agreeing} of {len(rewards)} judges agree. {' | '.join(said)} [votes {votes}; ensemble]"
        return Reward(
            decision.value, partial=sum(values) / len(values), rationale=rationale, cost_usd=cost, votes=values
        )
