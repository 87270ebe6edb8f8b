"""Group-relative policy optimisation, with the decoupled clip and the dynamic sampling of DAPO.

GRPO: arXiv 2402.03300, eq. 3-4. Clip-higher and group filtering: DAPO, arXiv 2503.14476, eq. 8 and 11.
Settings of vision-language-action policies in learned worlds: arXiv 2602.02454.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated

import torch
from torch import Tensor

from gymnast_core.config.ranges import AnyNumber, Choices, Fraction, NotNegative, Positive
from gymnast_core.errors import ConfigError
from gymnast_core.interfaces import Parts
from gymnast_core.learning import Advantages, Judged, Minibatch
from gymnast_core.types import LossSum, Metric
from gymnast_optimizers.aggregation import AVERAGES, factors_mask, masked, masked_metric, masked_sum
from gymnast_optimizers.gradient_steps import GradientConfig, GradientSteps

# exp() of a larger log-ratio overflows float32 long before it says anything about the policy.
MAX_LOG_RATIO = 20.0


class GRPO(GradientSteps):
    """Advantages relative to the group's mean, and a clipped surrogate loss; no value network."""

    @dataclass(frozen=True)
    class Config(GradientConfig):
        clip_low: Fraction = 0.2
        """Ratios below 1 - clip_low earn no further gain."""
        clip_high: NotNegative = 0.28
        """Ratios above 1 + clip_high earn no further gain."""
        epsilon: NotNegative = 1e-6
        """Added to the group's standard deviation."""
        normalise_std: bool = True
        """Divide advantages by the group's standard deviation; False: Dr. GRPO (arXiv 2503.20783)."""
        accuracy_bounds: list[AnyNumber] = field(default_factory=lambda: [0.1, 0.9])
        """Groups whose mean success lies outside these bounds (inclusive) are dropped. Of a reward model of the kind
        "score", whose numbers have no bounds, every group is kept whose rewards differ."""
        reward_scale: Positive = 1.0
        """Factor on rewards before advantages. Matters only through epsilon, or without normalise_std."""
        kl_coefficient: NotNegative = 0.0
        """Weight of the KL divergence from the frozen initial policy; above 0 a second copy of it is held."""
        kl_stop: NotNegative | None = None
        """KL from the acting policy (nats a factor) beyond which the batch is left; None: never."""
        loss_average: Annotated[str, Choices(*AVERAGES)] = "trajectory"
        """How factors are averaged: by "trajectory" (each weighs the same) or by "token" (DAPO)."""

    def __init__(self, config: GRPO.Config | None = None):
        config = config if config is not None else self.Config()
        super().__init__(config)
        _check(config)
        self.config: GRPO.Config = config
        self.needs_reference = config.kl_coefficient > 0
        self._bounds = (config.accuracy_bounds[0], config.accuracy_bounds[1])

    def attach(self, parts: Parts) -> None:
        if parts.reward_model is not None and parts.reward_model.kind == "score":
            self._bounds = (-math.inf, math.inf)

    def keep(self, judged: Judged) -> Tensor:
        """Groups whose rewards differ, and whose mean success lies within `accuracy_bounds`."""
        rewards_GK, valid_GK = _clean(judged)
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
        rewards_GK, valid_GK = _clean(judged)
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

    def loss(self, minibatch: Minibatch) -> LossSum:
        """max(-A r, -A clip(r, 1 - clip_low, 1 + clip_high)), plus the KL penalty when there is one; summed with the
        weight that `loss_average` gives."""
        config, by = self.config, self.config.loss_average
        mask_BS = minibatch.mask_BS.bool()
        mask_BSD = factors_mask(mask_BS, minibatch.log_prob_BSD)
        log_ratio_BSD = masked(minibatch.log_prob_BSD - minibatch.old_log_prob_BSD, mask_BSD)
        log_ratio_BSD = log_ratio_BSD.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)
        ratio_BSD = log_ratio_BSD.exp()
        advantages_BS1 = masked(minibatch.advantages_BS, mask_BS).to(ratio_BSD.dtype)[..., None]
        plain_BSD = -advantages_BS1 * ratio_BSD
        clipped_BSD = -advantages_BS1 * ratio_BSD.clamp(1.0 - config.clip_low, 1.0 + config.clip_high)
        total, weight = masked_sum(torch.maximum(plain_BSD, clipped_BSD), mask_BS, by=by)
        metrics = self._describe(log_ratio_BSD.detach(), clipped_BSD > plain_BSD, mask_BS)
        if self.needs_reference:
            reference_BSD = minibatch.reference_log_prob_BSD
            if reference_BSD is None:
                raise ConfigError(
                    "optimizer.args.kl_coefficient is above 0, so the loss needs the log-probabilities under "
                    "the initial policy, but got none. Set kl_coefficient to 0 or hold a reference policy."
                )
            divergence_BSD = k3(minibatch.log_prob_BSD, reference_BSD.detach(), mask_BSD)
            metrics["reference_kl"] = masked_metric(divergence_BSD, mask_BS, by=by)
            total = total + config.kl_coefficient * masked_sum(divergence_BSD, mask_BS, by=by)[0]
        return LossSum(total, weight, metrics)

    def should_stop(self, metrics: Mapping[str, float]) -> bool:
        return self.config.kl_stop is not None and not metrics["approx_kl"] <= self.config.kl_stop

    def _describe(self, log_ratio_BSD: Tensor, is_clipped_BSD: Tensor, mask_BS: Tensor) -> dict[str, Metric]:
        """What the step does to the policy. `approx_kl` is never negative; `log_ratio` is the signed mean."""
        by = self.config.loss_average
        ratio_BSD = log_ratio_BSD.exp()
        metrics = {
            "clip_fraction": masked_metric(is_clipped_BSD, mask_BS, by=by),
            "approx_kl": masked_metric(ratio_BSD - 1.0 - log_ratio_BSD, mask_BS, by=by),
            "log_ratio": masked_metric(log_ratio_BSD, mask_BS, by=by),
        }
        counted = ratio_BSD[factors_mask(mask_BS, ratio_BSD)]
        if counted.numel():
            metrics["ratio_max"] = Metric(counted.max(), combine="max")
            metrics["ratio_min"] = Metric(counted.min(), combine="min")
        return metrics


def k3(log_prob: Tensor, reference_log_prob: Tensor, mask: Tensor) -> Tensor:
    """Unbiased, never negative estimate of KL(policy || reference) in nats (arXiv 2402.03300, eq. 4)."""
    difference = masked(reference_log_prob - log_prob, mask).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)
    return difference.exp() - 1.0 - difference


def _clean(judged: Judged) -> tuple[Tensor, Tensor]:
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
