"""The step of the first success, from a reward model that judges clips: what `reward_model: first-hit` builds."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace

from gymnast_core.config import ComponentConfig
from gymnast_core.errors import ConfigError
from gymnast_core.interfaces import RewardModel
from gymnast_core.plugins.compose import registries
from gymnast_core.types import Reward, Rollout

from gymnast_wovr.clips import clip, clip_ends


class FirstHit(RewardModel):
    """Judges clips of each rollout by another reward model; the first clip that succeeds ends the rollout.

    The reward is that of the first clip whose value reaches `threshold`, with the actions up to there as `finish_step`:
    no later action is learned from (WoVR, arXiv 2602.13977; clip-level first hits: WMPO, arXiv 2511.09515). Where none
    does, it is the reward of the last clip, without a finish step. A clip that could not be judged before the first hit
    makes the reward an error: the step is not known then.
    """

    @dataclass(frozen=True)
    class Config:
        reward_model: ComponentConfig
        """Who judges the clips: {name, args}. It is asked horizon / every times as often as without this wrapper."""
        every: int = 4
        """Actions from the end of one clip to the end of the next; the last clip ends with the rollout."""
        clip_frames: int | None = None
        """Frames a clip, its last one included; None: from the rollout's first frame, for judges of what changed."""
        threshold: float = 0.5
        """Value of a clip from which on it is a success, in (0, 1]."""

    def __init__(self, config: Config) -> None:
        if config.every < 1:
            raise ConfigError(f"reward_model.args.every is {config.every}; it must be at least 1.")
        if config.clip_frames is not None and config.clip_frames < 2:
            raise ConfigError(f"reward_model.args.clip_frames is {config.clip_frames}; give at least 2, or null.")
        if not 0.0 < config.threshold <= 1.0:
            raise ConfigError(f"reward_model.args.threshold is {config.threshold}; it must lie in (0, 1].")
        self.config = config
        part = config.reward_model
        self._judge = registries().reward_models.build(part.name, part.args, key="reward_model.args.reward_model")

    def preflight(self, rollouts: int, frames: int) -> None:
        clips = len(clip_ends(frames - 1, self.config.every))
        longest = frames if self.config.clip_frames is None else min(frames, self.config.clip_frames)
        self._judge.preflight(rollouts * clips, longest)

    def score(self, rollouts: Sequence[Rollout]) -> list[Reward]:
        return self._merge(rollouts, self._judge.score(self._clips(rollouts)))

    def submit(self, rollouts: Sequence[Rollout]) -> Future[list[Reward]]:
        merged: Future[list[Reward]] = Future()

        def finish(judged: Future[list[Reward]]) -> None:
            try:
                merged.set_result(self._merge(rollouts, judged.result()))
            except BaseException as error:
                merged.set_exception(error)

        self._judge.submit(self._clips(rollouts)).add_done_callback(finish)
        return merged

    def close(self) -> None:
        self._judge.close()

    def _clips(self, rollouts: Sequence[Rollout]) -> list[Rollout]:
        config = self.config
        return [
            clip(rollout, end, config.clip_frames)
            for rollout in rollouts
            for end in clip_ends(rollout.horizon, config.every)
        ]

    def _merge(self, rollouts: Sequence[Rollout], judged: Sequence[Reward]) -> list[Reward]:
        rewards, first = [], 0
        for rollout in rollouts:
            ends = clip_ends(rollout.horizon, self.config.every)
            rewards.append(self._reward(rollout, ends, judged[first : first + len(ends)]))
            first += len(ends)
        return rewards

    def _reward(self, rollout: Rollout, ends: Sequence[int], judged: Sequence[Reward]) -> Reward:
        cost = sum(reward.cost_usd for reward in judged)
        for end, reward in zip(ends, judged, strict=True):
            if reward.value is None:
                return replace(reward, error=f"The clip up to action {end}: {reward.error}", cost_usd=cost)
            if reward.value >= self.config.threshold:
                said = f"First success after {end} of {rollout.horizon} actions. {reward.rationale}".strip()
                return replace(reward, rationale=said, cost_usd=cost, finish_step=end)
        return replace(judged[-1], cost_usd=cost)
