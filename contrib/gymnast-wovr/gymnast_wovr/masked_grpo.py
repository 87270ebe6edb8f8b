"""GRPO without the actions after the first success (WoVR, arXiv 2602.13977)."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

from gymnast_core.errors import ConfigError
from gymnast_core.learning import Minibatch
from gymnast_core.types import LossSum, Metric
from gymnast_optimizers.grpo import GRPO

logger = logging.getLogger(__name__)


class MaskedGRPO(GRPO):
    """`grpo` whose loss is, per trajectory, the mean over the actions up to its first success: weight 1/valid length.

    Which actions these are is the mask that gymnast makes of `Reward.finish_step`, so the reward model must be one that
    tells it, as `first-hit` does. What is added to `grpo` is that no other average is taken, the metric
    `after_first_hit`, and a warning where nothing is ever masked.
    """

    api_version = 2

    @dataclass(frozen=True)
    class Config(GRPO.Config):
        """Those of `grpo`; `loss_average` must stay "trajectory", which is the weight 1/valid length."""

    def __init__(self, config: MaskedGRPO.Config | None = None):
        config = config if config is not None else self.Config()
        if config.loss_average != "trajectory":
            raise ConfigError(
                f"optimizer.args.loss_average is {config.loss_average!r}; masked-grpo weighs each trajectory by 1/"
                "valid length, which is 'trajectory'. Use the optimizer grpo for another average."
            )
        super().__init__(config)
        self._has_masked = self._has_warned = False

    def loss(self, minibatch: Minibatch) -> LossSum:
        """GRPO's loss over the valid actions; the metric `after_first_hit` is the share of the others, in [0, 1]."""
        found = super().loss(minibatch)
        mask_BS = minibatch.mask_BS.bool()
        actions = mask_BS.numel()
        left_out = 1.0 - float(mask_BS.sum()) / max(actions, 1)
        self._has_masked |= left_out > 0.0
        if not self._has_masked and not self._has_warned and bool((minibatch.advantages_BS > 0).any()):
            self._has_warned = True
            logger.warning(
                "masked-grpo has masked nothing so far: no rollout is known to have succeeded before its last action. "
                "If the reward model does not tell when, wrap it: "
                "reward_model={name: first-hit, args: {reward_model: {name: …, args: …}}}"
            )
        return replace(found, metrics={**found.metrics, "after_first_hit": Metric(left_out, float(actions))})
