"""What an optimizer learns from: judged groups of rollouts, their advantages, and the minibatches of its loss.

Shapes and units are those of `gymnast_core.types`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Self

import torch
from torch import Tensor

from gymnast_core.types import ActionChunk, Observation, Reward, Rollout


@dataclass(frozen=True)
class Judged:
    """G groups of K rollouts with their rewards: what an optimizer learns from. Row g·K + k is rollout k of group g."""

    rollouts: tuple[Rollout, ...]
    rewards: tuple[Reward, ...]
    group_size: int
    """K."""

    @property
    def values_GK(self) -> Tensor:
        """float64 reward of each rollout, NaN where it could not be judged. Scores may differ by little beside their
        size: take off the baseline before float32."""
        values = [float("nan") if reward.value is None else reward.value for reward in self.rewards]
        return torch.tensor(values, dtype=torch.float64).reshape(-1, self.group_size)

    @property
    def valid_GK(self) -> Tensor:
        """bool: whether the rollout was judged."""
        return ~self.values_GK.isnan()

    @property
    def mask_BS(self) -> Tensor:
        """bool: whether an action counts, which those after the first success, or after the episode's end, do not."""
        return finished_mask(self.rollouts, self.rewards)

    @property
    def step_rewards_BS(self) -> Tensor:
        """float64 reward of each action: what the judge gave it, or the whole value at the last action that counts;
        0 for unjudged rollouts."""
        mask_BS = self.mask_BS
        rewards_BS = torch.zeros(mask_BS.shape, dtype=torch.float64)
        for row, reward in enumerate(self.rewards):
            if reward.value is None:
                continue
            if reward.step_values_S is not None:
                rewards_BS[row] = torch.where(mask_BS[row], reward.step_values_S.double(), 0.0)
            else:
                rewards_BS[row, int(mask_BS[row].sum()) - 1] = reward.value
        return rewards_BS


def finished_mask(rollouts: Sequence[Rollout], rewards: Sequence[Reward]) -> Tensor:
    """bool (B, S): True for the actions that count (`actions_that_count`)."""
    horizon = rollouts[0].horizon if rollouts else 0
    finish = torch.tensor([actions_that_count(*pair) for pair in zip(rollouts, rewards, strict=True)])
    return torch.arange(horizon)[None] < finish[:, None]


def actions_that_count(rollout: Rollout, reward: Reward) -> int:
    """Those up to the first success that the judge saw, and up to where the world ended the episode; all of them where
    there was neither."""
    ends = [end for end in (reward.finish_step, rollout.ended_after) if end is not None]
    return min([rollout.horizon, *ends])


@dataclass(frozen=True)
class Advantages:
    """How much better than expected each action was, and what else the loss is told about it. Rows as in `Judged`.

    Rewards are float64 up to here; what the loss is given is float32, as a policy's numbers are, and made so here.
    """

    advantages_BS: Tensor
    """float32; 0 in rows that were not judged, whatever their rewards hold."""
    targets: Mapping[str, Tensor] = field(default_factory=dict)
    """Further tensors with a row for each rollout, e.g. a critic's returns; the loss finds its part of them."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "advantages_BS", _for_the_loss(self.advantages_BS))
        object.__setattr__(self, "targets", {name: _for_the_loss(target) for name, target in self.targets.items()})

    @classmethod
    def of_trajectories(cls, advantages_GK: Tensor, judged: Judged) -> Self:
        """One advantage for all actions of a rollout; 0 where the rollout was not judged, whatever stands there."""
        advantages_GK = torch.where(judged.valid_GK, advantages_GK.float(), 0.0)
        horizon = judged.mask_BS.shape[1]
        return cls(advantages_GK.reshape(-1, 1).expand(-1, horizon))


def _for_the_loss(values: Tensor) -> Tensor:
    is_fine = isinstance(values, Tensor) and values.dtype is torch.float64
    return values.float() if is_fine else values


@dataclass(frozen=True)
class Learned:
    """What one iteration's update was given in this process."""

    judged: Judged
    advantages: Advantages


@dataclass(frozen=True)
class Minibatch:
    """B trajectories that one backward pass learns from: a whole minibatch or a part of one."""

    rollouts: tuple[Rollout, ...]
    observation: Observation
    """The B·N decisions' observations, as the policy saw them."""
    chunk: ActionChunk
    """The B·N decisions."""
    log_prob_BSD: Tensor
    """float32, under the current weights; differentiable. At each rollout's own temperature, or at 1 for an optimizer
    that `imitates`."""
    entropy_BSD: Tensor
    """float32, nats; differentiable."""
    old_log_prob_BSD: Tensor
    """float32, under the policy that acted."""
    advantages_BS: Tensor
    mask_BS: Tensor
    """bool: the actions that count. Others influence neither value nor gradient."""
    reference_log_prob_BSD: Tensor | None = None
    """float32, under the frozen initial policy; None unless the optimizer `needs_reference`."""
    features_BNF: Tensor | None = None
    """What the policy knows of each decision's observation; differentiable; None if it shows nothing."""
    targets: Mapping[str, Tensor] = field(default_factory=dict)
    """The rows of `Advantages.targets`."""
