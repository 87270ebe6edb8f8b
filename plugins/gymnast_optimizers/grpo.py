"""Group-relative policy optimisation, with the decoupled clip and the dynamic sampling of DAPO.

GRPO: arXiv 2402.03300, eq. 3-4. Clip-higher and group filtering: DAPO, arXiv 2503.14476, eq. 8 and 11.
Settings of vision-language-action policies in learned worlds: arXiv 2602.02454.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Annotated

import torch
from torch import Tensor

from gymnast_core.config.ranges import AnyNumber, Choices, NotNegative, Positive
from gymnast_core.errors import ConfigError
from gymnast_core.interfaces import Parts
from gymnast_core.learning import Advantages, Judged
from gymnast_optimizers.aggregation import AVERAGES
from gymnast_optimizers.surrogate import ClippedConfig, ClippedSurrogate


class GRPO(ClippedSurrogate):
    """Advantages relative to the group's mean, and a clipped surrogate loss; no value network."""

    @dataclass(frozen=True)
    class Config(ClippedConfig):
        epsilon: NotNegative = 1e-6
        """Added to the group's standard deviation."""
        normalise_std: bool = True
        """Divide advantages by the group's standard deviation; False: Dr. GRPO (arXiv 2503.20783)."""
        accuracy_bounds: list[AnyNumber] = field(default_factory=lambda: [0.1, 0.9])
        """Groups whose mean reward lies outside these bounds (inclusive) are dropped: of plain successes, those that
        are too hard or too easy. Graded rewards (`partial-credit`) differ in such groups, too: [0, 1] keeps them all.
        Of a reward model of the kind "score", whose numbers have no bounds, every group is kept whose rewards
        differ."""
        reward_scale: Positive = 1.0
        """Factor on rewards before advantages. Matters only through epsilon, or without normalise_std."""

    def __init__(self, config: GRPO.Config | None = None):
        config = config if config is not None else self.Config()
        super().__init__(config)
        _check(config)
        self.config: GRPO.Config = config
        self._bounds = (config.accuracy_bounds[0], config.accuracy_bounds[1])

    def attach(self, parts: Parts) -> None:
        if parts.reward_model is not None and parts.reward_model.kind == "score":
            self._bounds = (-math.inf, math.inf)

    def keep(self, judged: Judged) -> Tensor:
        """Groups whose rewards differ, and whose mean reward lies within `accuracy_bounds`."""
        rewards_GK, valid_GK = scored(judged)
        low, high = self._bounds
        if self.group_size == 1:
            # Without neighbours there is no baseline: the signal is the reward itself.
            return (rewards_GK != 0).any(1)
        count_G = valid_GK.sum(1)
        mean_G = rewards_GK.sum(1) / count_G.clamp(min=1)
        return (count_G > 1) & _varies(rewards_GK, valid_GK) & (mean_G >= low) & (mean_G <= high)

    def advantages(self, judged: Judged) -> Advantages:
        """(R - mean) / (std + epsilon) over the scored members of each group; std unbiased; one for all actions.

        Equal rewards give 0. A group with a single scored member keeps its scaled reward (mean 0, std 1).
        """
        return Advantages.of_trajectories(self.group_advantages(judged), judged)

    def group_advantages(self, judged: Judged) -> Tensor:
        """The advantage of each rollout, float32 (G, K)."""
        rewards_GK, valid_GK = scored(judged)
        rewards_GK = rewards_GK * self.config.reward_scale
        count_G1 = valid_GK.sum(1, keepdim=True)
        alone_G1 = count_G1 == 1
        mean_G1 = rewards_GK.sum(1, keepdim=True) / count_G1.clamp(min=1)
        centred_GK = (rewards_GK - mean_G1) * valid_GK
        scale_G1 = torch.ones_like(mean_G1)
        if self.config.normalise_std:
            variance_G1 = centred_GK.square().sum(1, keepdim=True) / (count_G1 - 1).clamp(min=1)
            scale_G1 = variance_G1.sqrt() + self.config.epsilon
        advantages_GK = centred_GK / scale_G1 * _varies(rewards_GK, valid_GK)[:, None]
        alone_scale = 1.0 + self.config.epsilon if self.config.normalise_std else 1.0
        return torch.where(alone_G1, rewards_GK / alone_scale, advantages_GK).float()


class DAPO(GRPO):
    """GRPO as DAPO has it (arXiv 2503.14476): the decoupled clip, every token weighs the same, and groups are kept if
    some of their rollouts succeeded and some did not, however few. With `loop.max_draws` above 1, the loop draws on
    until a batch is full (dynamic sampling), but not for ever."""

    @dataclass(frozen=True)
    class Config(GRPO.Config):
        loss_average: Annotated[str, Choices(*AVERAGES)] = "token"
        """How factors are averaged; DAPO's eq. 8 by "token"."""
        accuracy_bounds: list[AnyNumber] = field(default_factory=lambda: [0.0, 1.0])
        """Groups whose mean reward lies outside these bounds are dropped, and so are those whose rewards are all alike
        (eq. 11)."""


class DrGRPO(GRPO):
    """GRPO without its two biases (Dr. GRPO, arXiv 2503.20783): advantages are not divided by the group's spread, which
    favours tasks that are nearly always or nearly never done, nor sums over a trajectory by its own length."""

    @dataclass(frozen=True)
    class Config(GRPO.Config):
        normalise_std: bool = False
        """Whether advantages are divided by the group's standard deviation."""
        loss_average: Annotated[str, Choices(*AVERAGES)] = "horizon"
        """How factors are averaged; here over the whole "horizon", whatever a trajectory's length."""


def scored(judged: Judged) -> tuple[Tensor, Tensor]:
    """Float64 rewards with zeros where unscored, and which ones are scored, both (G, K)."""
    valid_GK = judged.valid_GK
    return torch.where(valid_GK, judged.values_GK.double(), 0.0), valid_GK


def _varies(rewards_GK: Tensor, valid_GK: Tensor) -> Tensor:
    highest_G = rewards_GK.masked_fill(~valid_GK, -torch.inf).amax(1)
    lowest_G = rewards_GK.masked_fill(~valid_GK, torch.inf).amin(1)
    return highest_G > lowest_G


def _check(config: GRPO.Config) -> None:
    bounds = list(config.accuracy_bounds)
    if len(bounds) != 2 or not bounds[0] <= bounds[1]:
        raise ConfigError(
            f"optimizer.args.accuracy_bounds is {bounds}; give [lowest, highest] mean reward, e.g. [0.1, 0.9]."
        )
