"""Iterated supervised fine-tuning: imagine, keep the successes, imitate them together with demonstrations.

The filtered-imitation baseline of World-Gymnast (arXiv 2602.02454) and Ctrl-World (arXiv 2510.10125).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gymnast_core.config.ranges import AnyNumber, NotNegative
from gymnast_core.learning import Advantages, Judged, Minibatch
from gymnast_core.success import SUCCESS_ABOVE
from gymnast_core.types import LossSum, Metric
from gymnast_optimizers.aggregation import trajectory_means
from gymnast_optimizers.gradient_steps import GradientConfig, GradientSteps


class IterSFT(GradientSteps):
    """Behaviour cloning of the rollouts that were judged successful; failures teach nothing.

    Both losses are cross-entropies at temperature 1, whatever `loop.temperature` the successes were sampled with: what
    was done is data. The metric `log_ratio`, a change since acting, is there only where that was at temperature 1.
    """

    imitates = True

    @dataclass(frozen=True)
    class Config(GradientConfig):
        success_threshold: AnyNumber = SUCCESS_ABOVE
        """Rewards above it count as successes."""
        demonstrations_per_rollout: NotNegative = 1.0
        """Demonstration episodes mixed into each minibatch, as a multiple of its trajectories."""

    def __init__(self, config: IterSFT.Config | None = None):
        config = config if config is not None else self.Config()
        super().__init__(config)
        self.config: IterSFT.Config = config
        self.demonstrations_per_rollout = config.demonstrations_per_rollout

    def keep(self, judged: Judged) -> Tensor:
        """Groups with a success."""
        return self._succeeded(judged).any(1)

    def advantages(self, judged: Judged) -> Advantages:
        """1 for a success, 0 for anything else."""
        return Advantages.of_trajectories(self._succeeded(judged).float(), judged)

    def loss(self, minibatch: Minibatch) -> LossSum:
        """-log p, averaged over each success's unmasked factors and summed over the successes; they are its weight."""
        mask_BS = minibatch.mask_BS.bool()
        success_B = ((minibatch.advantages_BS > 0) & mask_BS).any(1)
        counted_BS = mask_BS & success_B[:, None]
        total = -trajectory_means(minibatch.log_prob_BSD, counted_BS).sum()
        successes = success_B.sum()
        drift_BSD = (minibatch.log_prob_BSD - minibatch.old_log_prob_BSD).detach()
        sampled_at_1 = [rollout.temperature == 1.0 for rollout in minibatch.rollouts]
        compared_B = success_B & torch.tensor(sampled_at_1, dtype=torch.bool, device=success_B.device)
        drift = trajectory_means(drift_BSD, counted_BS & compared_B[:, None]).sum() / compared_B.sum().clamp(min=1)
        share = success_B.float().mean() if len(success_B) else 0.0
        metrics = {
            "success_fraction": Metric(share, float(len(success_B))),
            "log_ratio": Metric(drift, compared_B.sum()),
        }
        return LossSum(total, successes, metrics)

    def _succeeded(self, judged: Judged) -> Tensor:
        return judged.valid_GK & (judged.values_GK.nan_to_num() > self.config.success_threshold)
