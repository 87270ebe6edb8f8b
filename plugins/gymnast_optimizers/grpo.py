"""Group-relative policy optimisation, with the decoupled clip and the dynamic sampling of DAPO.

GRPO: arXiv 2402.03300, eq. 3-4. Clip-higher and group filtering: DAPO, arXiv 2503.14476, eq. 8 and 11.
Settings of vision-language-action policies in learned worlds: arXiv 2602.02454.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from gymnast_core.errors import ConfigError
from gymnast_core.interfaces import Loss
from gymnast_optimizers.aggregation import masked, masked_mean
from gymnast_optimizers.gradient_steps import GradientConfig, GradientSteps

# exp() of a larger log-ratio overflows float32 long before it says anything about the policy.
MAX_LOG_RATIO = 20.0


class GRPO(GradientSteps):
    """Advantages relative to the group's mean, and a clipped surrogate loss; no value network."""

    @dataclass(frozen=True)
    class Config(GradientConfig):
        clip_low: float = 0.2
        """Ratios below 1 - clip_low earn no further gain."""
        clip_high: float = 0.28
        """Ratios above 1 + clip_high earn no further gain."""
        epsilon: float = 1e-6
        """Added to the group's standard deviation."""
        normalise_std: bool = True
        """Divide advantages by the group's standard deviation; False: Dr. GRPO (arXiv 2503.20783)."""
        accuracy_bounds: list[float] = field(default_factory=lambda: [0.1, 0.9])
        """Groups whose mean reward lies outside these bounds (inclusive) are dropped."""
        reward_scale: float = 1.0
        """Factor on rewards before advantages. Matters only through epsilon, or without normalise_std."""
        kl_coefficient: float = 0.0
        """Weight of the KL divergence from the frozen initial policy; above 0 a second copy of it is held."""
        kl_stop: float | None = None
        """KL from the acting policy (nats a factor) beyond which the batch is left; None: never."""
        loss_average: str = "trajectory"
        """How factors are averaged: by "trajectory" (each weighs the same) or by "token" (DAPO)."""

    def __init__(self, config: GRPO.Config | None = None):
        config = config if config is not None else self.Config()
        super().__init__(config)
        _check(config)
        self.config: GRPO.Config = config
        self.needs_reference = config.kl_coefficient > 0

    def keep(self, rewards_GK: Tensor, valid_GK: Tensor) -> Tensor:
        rewards_GK, valid_GK = _clean(rewards_GK, valid_GK)
        count_G = valid_GK.sum(1)
        low, high = self.config.accuracy_bounds
        if self.group_size == 1:
            # Without neighbours there is no baseline: the signal is the reward itself.
            return (rewards_GK != 0).any(1)
        mean_G = rewards_GK.sum(1) / count_G.clamp(min=1)
        return (count_G > 1) & _varies(rewards_GK, valid_GK) & (mean_G >= low) & (mean_G <= high)

    def advantages(self, rewards_GK: Tensor, valid_GK: Tensor) -> Tensor:
        """(R - mean) / (std + epsilon) over the scored members of each group; std unbiased.

        Equal rewards give 0. A group with a single scored member keeps its scaled reward (mean 0, std 1).
        """
        rewards_GK, valid_GK = _clean(rewards_GK, valid_GK)
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

    def loss(
        self,
        log_prob_BS: Tensor,
        old_log_prob_BS: Tensor,
        advantages_B: Tensor,
        mask_BS: Tensor,
        reference_log_prob_BS: Tensor | None = None,
    ) -> Loss:
        """max(-A r, -A clip(r, 1 - clip_low, 1 + clip_high)), plus the KL penalty when there is one."""
        config = self.config
        mask_BS = mask_BS.bool()
        log_ratio_BS = masked(log_prob_BS - old_log_prob_BS, mask_BS).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)
        ratio_BS = log_ratio_BS.exp()
        advantages_B1 = advantages_B.float()[:, None]
        plain_BS = -advantages_B1 * ratio_BS
        clipped_BS = -advantages_B1 * ratio_BS.clamp(1.0 - config.clip_low, 1.0 + config.clip_high)
        value = self._mean(torch.maximum(plain_BS, clipped_BS), mask_BS)
        metrics = self._describe(log_ratio_BS.detach(), (clipped_BS > plain_BS).float(), mask_BS)
        metrics["policy_loss"] = float(value.detach())
        if self.needs_reference:
            if reference_log_prob_BS is None:
                raise ConfigError(
                    "optimizer.args.kl_coefficient is above 0, so the loss needs the log-probabilities under "
                    "the initial policy, but got none. Set kl_coefficient to 0 or hold a reference policy."
                )
            divergence = self._mean(k3(log_prob_BS, reference_log_prob_BS.detach(), mask_BS), mask_BS)
            metrics["reference_kl"] = float(divergence.detach())
            value = value + config.kl_coefficient * divergence
        return Loss(value, metrics)

    def should_stop(self, metrics: Mapping[str, float]) -> bool:
        return self.config.kl_stop is not None and not metrics["approx_kl"] <= self.config.kl_stop

    def _mean(self, values_BS: Tensor, mask_BS: Tensor) -> Tensor:
        return masked_mean(values_BS, mask_BS, by=self.config.loss_average)

    def _describe(self, log_ratio_BS: Tensor, is_clipped_BS: Tensor, mask_BS: Tensor) -> dict[str, float]:
        """What the step does to the policy. `approx_kl` is never negative; `log_ratio` is the signed mean."""
        counted = log_ratio_BS[mask_BS]
        extremes = counted if counted.numel() else torch.zeros(1)
        return {
            "clip_fraction": float(self._mean(is_clipped_BS, mask_BS)),
            "approx_kl": float(self._mean(log_ratio_BS.exp() - 1.0 - log_ratio_BS, mask_BS)),
            "log_ratio": float(self._mean(log_ratio_BS, mask_BS)),
            "ratio_max": float(extremes.max().exp()),
            "ratio_min": float(extremes.min().exp()),
        }


def k3(log_prob_BS: Tensor, reference_log_prob_BS: Tensor, mask_BS: Tensor) -> Tensor:
    """Unbiased, never negative estimate of KL(policy || reference) in nats (arXiv 2402.03300, eq. 4)."""
    difference_BS = masked(reference_log_prob_BS - log_prob_BS, mask_BS).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)
    return difference_BS.exp() - 1.0 - difference_BS


def _clean(rewards_GK: Tensor, valid_GK: Tensor) -> tuple[Tensor, Tensor]:
    """Float64 rewards with zeros where unscored: an unscored entry may hold anything, NaN included."""
    valid_GK = valid_GK.bool()
    return torch.where(valid_GK, rewards_GK.double(), 0.0), valid_GK


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
    if not (0 <= config.clip_low <= 1 and config.clip_high >= 0):
        raise ConfigError(
            f"optimizer.args.clip_low is {config.clip_low} and clip_high {config.clip_high}; "
            "they are distances from 1: clip_low in [0, 1], clip_high at least 0."
        )
    for name in ("epsilon", "kl_coefficient"):
        if not getattr(config, name) >= 0:
            raise ConfigError(f"optimizer.args.{name} is {getattr(config, name)}; it must not be negative.")
    if not config.reward_scale > 0:
        raise ConfigError(f"optimizer.args.reward_scale is {config.reward_scale}; it must be above 0.")
    if config.loss_average not in ("trajectory", "token"):
        raise ConfigError(
            f"optimizer.args.loss_average is {config.loss_average!r}; it is either 'trajectory' or 'token'."
        )
