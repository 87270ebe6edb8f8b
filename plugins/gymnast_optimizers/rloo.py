"""REINFORCE with a leave-one-out baseline.

RLOO: arXiv 2402.14740, section 3.2 (Kool et al., "Buy 4 REINFORCE samples, get a baseline for free!", 2019). A whole
trajectory is one action: its log-probability is the sum over its factors, and nothing is clipped or normalised.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gymnast_core.errors import ConfigError
from gymnast_core.learning import Advantages, Judged, Minibatch
from gymnast_core.types import LossSum
from gymnast_optimizers.aggregation import factors_mask, masked, masked_metric
from gymnast_optimizers.gradient_steps import GradientConfig, GradientSteps


class RLOO(GradientSteps):
    """Advantage: a rollout's reward minus the mean reward of the others of its group."""

    @dataclass(frozen=True)
    class Config(GradientConfig):
        """The estimator is on-policy: leave `epochs` at 1, and let `minibatch_size` hold the whole batch."""

    def __init__(self, config: RLOO.Config | None = None):
        config = config if config is not None else self.Config()
        super().__init__(config)
        if config.group_size < 2:
            raise ConfigError(f"optimizer.args.group_size is {config.group_size}; leave-one-out needs at least 2.")
        self.config: RLOO.Config = config

    def keep(self, judged: Judged) -> Tensor:
        """Groups whose scored rewards differ; equal ones give no gradient."""
        return (self.group_advantages(judged) != 0).any(1)

    def advantages(self, judged: Judged) -> Advantages:
        """R_i - mean of R_j, j != i, over the scored members; 0 for one that has no other to be compared with."""
        return Advantages.of_trajectories(self.group_advantages(judged), judged)

    def group_advantages(self, judged: Judged) -> Tensor:
        """The advantage of each rollout, float32 (G, K)."""
        valid_GK = judged.valid_GK
        rewards_GK = torch.where(valid_GK, judged.values_GK.double(), 0.0)
        others_G1 = (valid_GK.sum(1, keepdim=True) - 1).clamp(min=1)
        baseline_GK = (rewards_GK.sum(1, keepdim=True) - rewards_GK) / others_G1
        compared_GK = valid_GK & (valid_GK.sum(1, keepdim=True) > 1)
        advantages_GK = torch.where(compared_GK, rewards_GK - baseline_GK, 0.0)
        # Rewards that are equal up to rounding are no signal.
        return torch.where(advantages_GK.abs() < 1e-9, 0.0, advantages_GK).float()

    def loss(self, minibatch: Minibatch) -> LossSum:
        """-A log p(trajectory), summed over the trajectories.

        There is no importance ratio: rollouts of an earlier version of the policy (several `epochs` or minibatches,
        Ray's `staleness=1`, groups that waited) count as if it had made them now; `log_ratio` says how far off they
        are.
        """
        mask_BSD = factors_mask(minibatch.mask_BS, minibatch.log_prob_BSD)
        log_prob_BS = masked(minibatch.log_prob_BSD, mask_BSD).sum(2)
        advantages_BS = masked(minibatch.advantages_BS, minibatch.mask_BS.bool())
        total = -(advantages_BS.to(log_prob_BS.dtype) * log_prob_BS).sum()
        drift_BSD = minibatch.log_prob_BSD - minibatch.old_log_prob_BSD
        metrics = {"log_ratio": masked_metric(drift_BSD, minibatch.mask_BS, by="trajectory")}
        return LossSum(total, len(log_prob_BS), metrics)
