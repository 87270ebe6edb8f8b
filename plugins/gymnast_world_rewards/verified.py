"""Verified reward: how near the policy's imagined rollout stays to the expert's, both imagined by the same world model.

VLA-RFT (arXiv 2510.00406, eq. 5-6): the reward is minus the mean absolute error and a perceptual distance (LPIPS
there), frame by frame. Comparing with the expert's *imagined* frames, not its recorded ones, takes the world model's
own errors out of the reward; the same start and the same noise take out its chance.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Annotated

import torch
from torch import Tensor

from gymnast_core.config.ranges import Choices, NotNegative, check_values
from gymnast_core.errors import ConfigError
from gymnast_core.interfaces import Parts, RewardModel
from gymnast_core.rollouts.replay import Course, replay, shown_again
from gymnast_core.seeds import seeded_generator
from gymnast_core.types import Episode, Reward, Rollout
from gymnast_world_rewards.around import KEY, ImaginedConfig, Imagining
from gymnast_world_rewards.distance import DISTANCES, absolute_error, at_most, find_distance, perceptual


class Verified(RewardModel):
    """Minus the distance to the world model's rollout of the expert's recorded actions; 0 is the best there is.

    Needs tasks that carry a recorded expert (`Task.expert`). The policy's actions are imagined again from the noise in
    which the expert's are imagined, once for each task. Beyond the end of a shorter expert, its last frame is the goal.
    """

    api_version = 2
    kind = "score"

    @dataclass(frozen=True)
    class Config(ImaginedConfig):
        distance: Annotated[str, Choices(*DISTANCES)] = "ms-ssim"
        """What is added to the mean absolute error: "lpips" (VLA-RFT's; needs a file of weights), "ms-ssim" (1 minus
        the multi-scale structural similarity; none needed), or "none"."""
        lpips: str | None = None
        """A .safetensors file with the state dict of lpips.LPIPS(net="alex")."""
        error_weight: NotNegative = 1.0
        """Weight of the mean absolute error, which is 1 between black and white."""
        distance_weight: NotNegative = 1.0
        """Weight of the perceptual distance."""
        of_steps: bool = True
        """Whether each action has its frame's share of the reward; false: all of it stands at the end."""
        same_noise: bool = True
        """Whether the policy's actions are imagined again, from the expert's noise. False compares the frames that the
        policy saw, imagined from other noise: half the frames to imagine, and chance in the reward."""

    def __init__(self, config: Verified.Config | None = None) -> None:
        self.config = config if config is not None else self.Config()
        check_values(self.Config, asdict(self.config), KEY)
        if self.config.error_weight == 0 and (self.config.distance == "none" or self.config.distance_weight == 0):
            raise ConfigError(f"{KEY}: without error_weight and without a distance, every rollout is worth 0.")
        found = find_distance(self.config.distance, self.config.lpips)
        self._distance = None if found is None else at_most(found, self.config.together)
        self._imagining = Imagining(self.config, "verified")

    def attach(self, parts: Parts) -> None:
        self._imagining.attach(parts)

    def close(self) -> None:
        self._imagining.close()

    def score(self, rollouts: Sequence[Rollout]) -> list[Reward]:
        rewards = [Reward(None, error=_unfit(rollout) or "not compared") for rollout in rollouts]
        rows = [row for row, rollout in enumerate(rollouts) if _unfit(rollout) is None]
        if not rows:
            return rewards
        chosen = [rollouts[row] for row in rows]
        experts = self._experts(chosen)
        shown = self._policys(chosen) if self.config.same_noise else chosen
        for row, mine, expert in zip(rows, shown, experts, strict=True):
            lost = mine.error or expert.error
            rewards[row] = Reward(None, error=lost) if lost is not None else self._compared(mine, expert)
        return rewards

    def _policys(self, rollouts: Sequence[Rollout]) -> list[Rollout]:
        courses = [Course(r.task, r.actions_NLA.unbind(0), self._noise(r)) for r in rollouts]
        return self._shown(rollouts, courses)

    def _experts(self, rollouts: Sequence[Rollout]) -> list[Rollout]:
        """The expert's imagined rollout beside each of the policy's; those of one task and noise are one."""
        first: dict[tuple[object, ...], Rollout] = {}
        keys = [_start(rollout) for rollout in rollouts]
        for key, rollout in zip(keys, rollouts, strict=True):
            first.setdefault(key, rollout)
        courses = [Course(r.task, _expert_chunks(r), self._noise(r)) for r in first.values()]
        found = dict(zip(first, self._shown(list(first.values()), courses), strict=True))
        return [found[key] for key in keys]

    def _shown(self, rollouts: Sequence[Rollout], courses: Sequence[Course]) -> list[Rollout]:
        steps = replay(self._imagining.world, courses, together=self.config.together)
        return [shown_again(rollout, step) for rollout, step in zip(rollouts, steps, strict=True)]

    def _noise(self, rollout: Rollout) -> torch.Generator:
        """That of the task, for the expert and whoever is compared with it."""
        return seeded_generator(self.config.seed, "verified", rollout.task.id, rollout.task.instruction)

    def _compared(self, mine: Rollout, expert: Rollout) -> Reward:
        """One reward from two rollouts that may differ in length."""
        shown_SVHWC = mine.frames_TVHWC[1:]
        reached = torch.arange(1, len(shown_SVHWC) + 1).clamp(max=len(expert.frames_TVHWC) - 1)
        wanted_SVHWC = expert.frames_TVHWC[reached]
        error_S = absolute_error(shown_SVHWC, wanted_SVHWC)
        apart_S = torch.zeros_like(error_S)
        if self._distance is not None:
            apart_S = perceptual(shown_SVHWC, wanted_SVHWC, self._distance)
        worth_S = -(self.config.error_weight * error_S + self.config.distance_weight * apart_S)
        if not bool(torch.isfinite(worth_S).all()):
            return Reward(None, error=f"the distance {self.config.distance} of two frames is no number")
        # The mean over frames, so that horizons do not change the scale; as rewards of steps they add up to it.
        steps_S = (worth_S / len(worth_S)).float()
        numbers = {"error": float(error_S.mean())}
        if self._distance is not None:
            numbers[self.config.distance.replace("-", "_")] = float(apart_S.mean())
        said = ", ".join(f"{name} {number:.4f}" for name, number in numbers.items())
        return Reward(
            float(steps_S.sum()), step_values_S=steps_S if self.config.of_steps else None, numbers=numbers,
            rationale=f"against the expert's imagined rollout: {said}",
        )  # fmt: skip


def _unfit(rollout: Rollout) -> str | None:
    """Why a rollout cannot be compared; None if it can."""
    expert: Episode | None = rollout.task.expert
    if expert is None:
        return (
            f"Task {rollout.task.id!r} carries no expert to compare with: set tasks.args.expert, where the dataset has "
            "it (episode-starts, tabletop), or choose another reward model."
        )
    if not len(expert.actions_TA) or not rollout.horizon or not rollout.frame_count:
        return f"Task {rollout.task.id!r}: the expert or the rollout has no actions."
    if expert.actions_TA.shape[1] != rollout.actions_NLA.shape[2]:
        return (
            f"Task {rollout.task.id!r}: the expert's actions have {expert.actions_TA.shape[1]} components, the "
            f"policy's {rollout.actions_NLA.shape[2]}."
        )
    return None


def _expert_chunks(rollout: Rollout) -> tuple[Tensor, ...]:
    """The expert's actions, as many as the policy's at most, in chunks of the same length."""
    expert = rollout.task.expert
    assert expert is not None
    actions_SA = expert.actions_TA[: rollout.horizon].float()
    return tuple(actions_SA.split(rollout.actions_NLA.shape[1]))


def _start(rollout: Rollout) -> tuple[object, ...]:
    """What the expert's imagined rollout depends on: equal for the rollouts of a group."""
    task = rollout.task
    return (id(task), task.id, task.instruction, tuple(rollout.actions_NLA.shape))
