"""The step of the first success, from a reward model that judges clips: what `reward_model: first-hit` builds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import asdict, dataclass, replace
from typing import Annotated, Any

import torch
from gymnast_core.config import ComponentConfig
from gymnast_core.config.ranges import AnyNumber, Count, Range, check_values
from gymnast_core.errors import ConfigError
from gymnast_core.futures import when_all
from gymnast_core.interfaces import Parts, RewardModel
from gymnast_core.money import total_usd
from gymnast_core.plugins.compose import registries
from gymnast_core.types import Reward, Rollout, Task

from gymnast_wovr.clips import clip, clip_ends, clip_start, length


class FirstHit(RewardModel):
    """Judges clips of each rollout by another reward model; the first clip that succeeds ends the rollout.

    The reward is that of the first clip whose value reaches `threshold`. Its `finish_step` is the end of that clip, or
    where the judge itself saw the success in it: no later action is learned from (WoVR, arXiv 2602.13977; clip-level
    first hits: WMPO, arXiv 2511.09515). Where no clip reaches it, the reward is that of the last clip, without a finish
    step. A clip that could not be judged before the first hit makes the reward an error: the step is not known then.
    Rewards are of the kind that the other reward model gives.
    """

    api_version = 2

    @dataclass(frozen=True)
    class Config:
        reward_model: ComponentConfig
        """Who judges the clips: {name, args}. It is asked horizon / every times as often as without this wrapper."""
        every: Count = 4
        """Actions from the end of one clip to the end of the next; the last clip ends with the rollout."""
        clip_frames: Annotated[int, Range(least=2)] | None = None
        """Frames a clip, its last one included; None: from the rollout's first frame, for judges of what changed."""
        threshold: AnyNumber = 0.5
        """Value of a clip from which on it is a success: in (0, 1], of a judge that gives scores any number."""

    def __init__(self, config: Config) -> None:
        check_values(type(config), asdict(config), "reward_model.args")
        self.config = config
        part = config.reward_model
        self._judge = registries().reward_models.build(part.name, part.args, key="reward_model.args.reward_model")
        self.kind = self._judge.kind
        least, most = (0.0, 1.0) if self.kind == "success" else (-math.inf, math.inf)
        if not least < config.threshold <= most:
            raise ConfigError(f"reward_model.args.threshold is {config.threshold}; it must lie in ({least}, {most}].")

    def attach(self, parts: Parts) -> None:
        self._judge.attach(parts)

    def state_dict(self) -> dict[str, Any]:
        """The other reward model's."""
        return self._judge.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._judge.load_state_dict(state)

    def objection(self, task: Task) -> str | None:
        return self._judge.objection(task)

    def preflight(self, rollouts: int, frames: int) -> None:
        clips = len(clip_ends(frames - 1, self.config.every))
        longest = frames if self.config.clip_frames is None else min(frames, self.config.clip_frames)
        self._judge.preflight(rollouts * clips, longest)

    def score(self, rollouts: Sequence[Rollout]) -> list[Reward]:
        return self._merge(rollouts, self._judge.score(self._clips(rollouts)))

    def submit(self, rollouts: Sequence[Rollout]) -> Future[list[Reward]]:
        judged = self._judge.submit(self._clips(rollouts))
        return when_all([judged], lambda rewards: self._merge(rollouts, rewards[0]))

    def close(self) -> None:
        self._judge.close()

    def _clips(self, rollouts: Sequence[Rollout]) -> list[Rollout]:
        config = self.config
        return [
            clip(rollout, end, config.clip_frames)
            for rollout in rollouts
            for end in clip_ends(length(rollout), config.every)
        ]

    def _merge(self, rollouts: Sequence[Rollout], judged: Sequence[Reward]) -> list[Reward]:
        rewards, first = [], 0
        for rollout in rollouts:
            ends = clip_ends(length(rollout), self.config.every)
            rewards.append(self._reward(rollout, ends, judged[first : first + len(ends)]))
            first += len(ends)
        return rewards

    def _reward(self, rollout: Rollout, ends: Sequence[int], judged: Sequence[Reward]) -> Reward:
        cost = total_usd(reward.cost_usd for reward in judged)
        for end, reward in zip(ends, judged, strict=True):
            if reward.value is None:
                error = f"The clip up to action {end}: {reward.error}"
                return Reward(None, error=error, cost_usd=cost, votes=reward.votes, abstained=reward.abstained)
            if reward.value >= self.config.threshold:
                start = clip_start(end, self.config.clip_frames)
                finish = end if reward.finish_step is None else start + reward.finish_step
                said = f"First success after {finish} of {rollout.horizon} actions. {reward.rationale}".strip()
                return replace(self._whole(reward, rollout, end), rationale=said, cost_usd=cost, finish_step=finish)
        return replace(self._whole(judged[-1], rollout, ends[-1]), cost_usd=cost, finish_step=None)

    def _whole(self, reward: Reward, rollout: Rollout, end: int) -> Reward:
        """A clip's reward as one of the whole rollout: actions outside the clip have none of their own."""
        if reward.step_values_S is None:
            return reward
        values_S = torch.zeros(rollout.horizon)
        values_S[clip_start(end, self.config.clip_frames) : end] = reward.step_values_S
        return replace(reward, step_values_S=values_S)
