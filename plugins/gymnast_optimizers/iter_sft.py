"""Iterated supervised fine-tuning: imagine, keep the successes, imitate them together with demonstrations.

The filtered-imitation baseline of World-Gymnast (arXiv 2602.02454) and Ctrl-World (arXiv 2510.10125).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gymnast_core.errors import ConfigError
from gymnast_core.interfaces import Loss
from gymnast_optimizers.aggregation import masked, trajectory_means
from gymnast_optimizers.gradient_steps import GradientConfig, GradientSteps


class IterSFT(GradientSteps):
    """Behaviour cloning of the rollouts that were judged successful; failures teach nothing."""

    @dataclass(frozen=True)
    class Config(GradientConfig):
        success_threshold: float = 0.5
        """Rewards above it count as successes."""
        demonstrations_per_rollout: float = 1.0
        """Demonstration episodes mixed into each minibatch, as a multiple of its trajectories."""

    def __init__(self, config: IterSFT.Config | None = None):
        config = config if config is not None else self.Config()
        super().__init__(config)
        if not config.demonstrations_per_rollout >= 0:
            raise ConfigError(
                f"optimizer.args.demonstrations_per_rollout is {config.demonstrations_per_rollout}; "
                "it must not be negative."
            )
        self.config: IterSFT.Config = config
        self.demonstrations_per_rollout = config.demonstrations_per_rollout

    def keep(self, rewards_GK: Tensor, valid_GK: Tensor) -> Tensor:
        return self._succeeded(rewards_GK, valid_GK).any(1)

    def advantages(self, rewards_GK: Tensor, valid_GK: Tensor) -> Tensor:
        """1 for a success, 0 for anything else."""
        return self._succeeded(rewards_GK, valid_GK).float()

    def loss(
        self,
        log_prob_BS: Tensor,
        old_log_prob_BS: Tensor,
        advantages_B: Tensor,
        mask_BS: Tensor,
        reference_log_prob_BS: Tensor | None = None,
    ) -> Loss:
        """-log p, averaged over each success's unmasked factors, then over the successes."""
        mask_BS = mask_BS.bool()
        weights_B = (advantages_B > 0).float() * mask_BS.any(1)
        counted_BS = mask_BS & (weights_B > 0)[:, None]
        mean_log_prob_B = trajectory_means(log_prob_BS, counted_BS)
        successes = weights_B.sum()
        value = -mean_log_prob_B.sum() / successes.clamp(min=1)
        drift_BS = masked((log_prob_BS - old_log_prob_BS).detach(), counted_BS)
        drift = trajectory_means(drift_BS, counted_BS).sum() / successes.clamp(min=1)
        metrics = {
            "policy_loss": float(value.detach()),
            "success_fraction": float(successes / max(len(weights_B), 1)),
            "log_ratio": float(drift),
        }
        return Loss(value, metrics)

    def _succeeded(self, rewards_GK: Tensor, valid_GK: Tensor) -> Tensor:
        return valid_GK.bool() & (torch.nan_to_num(rewards_GK) > self.config.success_threshold)
