"""The clipped surrogate that GRPO, PPO and REINFORCE++ share, with what it says of a step.

PPO: arXiv 1707.06347, eq. 7. Decoupled clip: DAPO, arXiv 2503.14476, eq. 8. KL estimator: arXiv 2402.03300, eq. 4.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from gymnast_core.config.ranges import Choices, Fraction, NotNegative
from gymnast_core.errors import ConfigError
from gymnast_core.learning import Minibatch
from gymnast_core.types import LossSum, Metric
from gymnast_optimizers.aggregation import AVERAGES, factors_mask, masked, masked_metric, masked_sum
from gymnast_optimizers.gradient_steps import GradientConfig, GradientSteps

# exp() of a larger log-ratio overflows float32 long before it says anything about the policy.
MAX_LOG_RATIO = 20.0
RATIOS = ("factor", "action", "decision")


@dataclass(frozen=True)
class ClippedConfig(GradientConfig):
    """Batching, learning rate and the clipped surrogate."""

    clip_low: Fraction = 0.2
    """Ratios below 1 - clip_low earn no further gain."""
    clip_high: NotNegative = 0.28
    """Ratios above 1 + clip_high earn no further gain."""
    ratio: Annotated[str, Choices(*RATIOS)] = "factor"
    """What one ratio of probabilities is of: a "factor" of an action (a token), a whole "action", or a "decision" (all
    actions of a chunk that count)."""
    kl_coefficient: NotNegative = 0.0
    """Weight of the KL divergence from the frozen initial policy; above 0 a second copy of it is held."""
    kl_stop: NotNegative | None = None
    """KL from the acting policy (nats a factor, action or decision: see `ratio`) beyond which the batch is left; None:
    never."""
    entropy_coefficient: NotNegative = 0.0
    """Weight of the policy's entropy (nats), which the loss then rewards."""
    loss_average: Annotated[str, Choices(*AVERAGES)] = "trajectory"
    """How factors are averaged: by "trajectory" (each weighs the same), by "token" (DAPO), or over the whole "horizon"
    (Dr. GRPO: a factor weighs the same in a short trajectory as in a long one)."""


class ClippedSurrogate(GradientSteps):
    """The part of an `Optimizer` that turns advantages into a clipped loss."""

    config: ClippedConfig

    def __init__(self, config: ClippedConfig) -> None:
        super().__init__(config)
        self.needs_reference = config.kl_coefficient > 0

    def loss(self, minibatch: Minibatch) -> LossSum:
        """max(-A r, -A clip(r, 1 - clip_low, 1 + clip_high)), plus the KL penalty and minus the entropy where they have
        a weight; summed with the weight that `loss_average` gives. The metric `policy_loss` is the first alone."""
        config, by = self.config, self.config.loss_average
        log_ratio_BSD = self.each(minibatch.log_prob_BSD - minibatch.old_log_prob_BSD, minibatch)
        mask_BS = self.mask(minibatch)
        log_ratio_BSD = log_ratio_BSD.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)
        ratio_BSD = log_ratio_BSD.exp()
        advantages_BS1 = self._advantages(minibatch).to(ratio_BSD.dtype)[..., None]
        plain_BSD = -advantages_BS1 * ratio_BSD
        clipped_BSD = -advantages_BS1 * ratio_BSD.clamp(1.0 - config.clip_low, 1.0 + config.clip_high)
        total, weight = masked_sum(torch.maximum(plain_BSD, clipped_BSD), mask_BS, by=by)
        metrics = self._describe(log_ratio_BSD.detach(), clipped_BSD > plain_BSD, mask_BS)
        metrics["policy_loss"] = Metric(total.detach() / weight.clamp(min=1), weight)
        if self.needs_reference:
            divergence_BSD = self._divergence(minibatch)
            metrics["reference_kl"] = masked_metric(divergence_BSD, minibatch.mask_BS, by=by)
            divergence_BSD = self.each(divergence_BSD, minibatch)
            total = total + config.kl_coefficient * masked_sum(divergence_BSD, mask_BS, by=by)[0]
        if config.entropy_coefficient:
            entropy_BSD = self.each(minibatch.entropy_BSD, minibatch)
            total = total - config.entropy_coefficient * masked_sum(entropy_BSD, mask_BS, by=by)[0]
        return LossSum(total, weight, metrics)

    def should_stop(self, metrics: Mapping[str, float]) -> bool:
        return self.config.kl_stop is not None and not metrics["approx_kl"] <= self.config.kl_stop

    def each(self, values_BSD: Tensor, minibatch: Minibatch) -> Tensor:
        """Values of factors, added up over what `ratio` says is one: (B, S, D), (B, S, 1) or (B, N, 1)."""
        values_BSD = masked(values_BSD, factors_mask(minibatch.mask_BS, values_BSD))
        if self.config.ratio == "factor":
            return values_BSD
        values_BS1 = values_BSD.sum(2, keepdim=True)
        if self.config.ratio == "action":
            return values_BS1
        return values_BS1.unflatten(1, (-1, chunk_length(minibatch))).sum(2)

    def mask(self, minibatch: Minibatch) -> Tensor:
        """Which of those count, bool (B, S) or (B, N)."""
        mask_BS = minibatch.mask_BS.bool()
        return mask_BS if self.config.ratio != "decision" else mask_BS[:, :: chunk_length(minibatch)]

    def _advantages(self, minibatch: Minibatch) -> Tensor:
        """A decision's advantage is the mean of its actions' that count."""
        mask_BS = minibatch.mask_BS.bool()
        advantages_BS = masked(minibatch.advantages_BS, mask_BS)
        if self.config.ratio != "decision":
            return advantages_BS
        chunks = (-1, chunk_length(minibatch))
        return advantages_BS.unflatten(1, chunks).sum(2) / mask_BS.unflatten(1, chunks).sum(2).clamp(min=1)

    def _divergence(self, minibatch: Minibatch) -> Tensor:
        reference_BSD = minibatch.reference_log_prob_BSD
        if reference_BSD is None:
            raise ConfigError(
                "optimizer.args.kl_coefficient is above 0, so the loss needs the log-probabilities under "
                "the initial policy, but got none. Set kl_coefficient to 0 or hold a reference policy."
            )
        mask_BSD = factors_mask(minibatch.mask_BS, reference_BSD)
        return k3(minibatch.log_prob_BSD, reference_BSD.detach(), mask_BSD)

    def _describe(self, log_ratio_BSD: Tensor, is_clipped_BSD: Tensor, mask_BS: Tensor) -> dict[str, Metric]:
        """What the step does to the policy. `approx_kl` is never negative; `log_ratio` is the signed mean."""
        by = self.config.loss_average
        ratio_BSD = log_ratio_BSD.exp()
        metrics = {
            "clip_fraction": masked_metric(is_clipped_BSD, mask_BS, by=by),
            "approx_kl": masked_metric(ratio_BSD - 1.0 - log_ratio_BSD, mask_BS, by=by),
            "log_ratio": masked_metric(log_ratio_BSD, mask_BS, by=by),
        }
        counted_BSD = factors_mask(mask_BS, ratio_BSD)
        weight = counted_BSD.sum()
        metrics["ratio_max"] = Metric(ratio_BSD.masked_fill(~counted_BSD, -math.inf).max(), weight, "max")
        metrics["ratio_min"] = Metric(ratio_BSD.masked_fill(~counted_BSD, math.inf).min(), weight, "min")
        return metrics


def chunk_length(minibatch: Minibatch) -> int:
    """Actions a decision, L."""
    return minibatch.chunk.actions_BLA.shape[1]


def k3(log_prob: Tensor, reference_log_prob: Tensor, mask: Tensor) -> Tensor:
    """Unbiased, never negative estimate of KL(policy || reference) in nats (arXiv 2402.03300, eq. 4)."""
    difference = masked(reference_log_prob - log_prob, mask).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)
    return difference.exp() - 1.0 - difference
