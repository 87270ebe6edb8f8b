"""REINFORCE with a leave-one-out baseline.

RLOO: arXiv 2402.14740, section 3.2 (Kool et al., "Buy 4 REINFORCE samples, get a baseline for free!", 2019). A whole
trajectory is one action: its log-probability is the sum over its factors, and nothing is clipped or normalised.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gymnast_core.errors import ConfigError
from gymnast_core.interfaces import Loss
from gymnast_optimizers.aggregation import masked, trajectory_means
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

    def keep(self, rewards_GK: Tensor, valid_GK: Tensor) -> Tensor:
        """Groups whose scored rewards differ; equal ones give no gradient."""
        return (self.advantages(rewards_GK, valid_GK) != 0).any(1)

    def advantages(self, rewards_GK: Tensor, valid_GK: Tensor) -> Tensor:
        """R_i - mean of R_j, j != i, over the scored members; 0 for one that has no other to be compared with."""
        valid_GK = valid_GK.bool()
        rewards_GK = torch.where(valid_GK, rewards_GK.double(), 0.0)
        others_G1 = (valid_GK.sum(1, keepdim=True) - 1).clamp(min=1)
        baseline_GK = (rewards_GK.sum(1, keepdim=True) - rewards_GK) / others_G1
        compared_GK = valid_GK & (valid_GK.sum(1, keepdim=True) > 1)
        advantages_GK = torch.where(compared_GK, rewards_GK - baseline_GK, 0.0)
        # Rewards that are equal up to rounding are no signal.
        return torch.where(advantages_GK.abs() < 1e-9, 0.0, advantages_GK).float()

    def loss(
        self,
        log_prob_BS: Tensor,
        old_log_prob_BS: Tensor,
        advantages_B: Tensor,
        mask_BS: Tensor,
        reference_log_prob_BS: Tensor | None = None,
    ) -> Loss:
        """-A log p(trajectory), averaged over the trajectories."""
        mask_BS = mask_BS.bool()
        log_prob_B = masked(log_prob_BS, mask_BS).sum(1)
        value = -(advantages_B.float() * log_prob_B).sum() / max(len(log_prob_B), 1)
        drift_BS = masked((log_prob_BS - old_log_prob_BS).detach(), mask_BS)
        metrics = {
            "policy_loss": float(value.detach()),
            "log_ratio": float(trajectory_means(drift_BS, mask_BS).sum() / max(len(drift_BS), 1)),
        }
        return Loss(value, metrics)
