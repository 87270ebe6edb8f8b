"""REINFORCE++: no critic and no groups; advantages are whitened over the whole batch, and the KL divergence from the
initial policy is a part of the reward (arXiv 2501.03262, eq. 3-6 and section 3).
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from torch import Tensor, nn

from gymnast_core.config.ranges import Choices, NotNegative
from gymnast_core.errors import ConfigError
from gymnast_core.interfaces import Parts, Policy
from gymnast_core.learning import Advantages, Judged
from gymnast_core.training.unchanging import fingerprint_of, refuse_another_initial
from gymnast_optimizers.aggregation import AVERAGES
from gymnast_optimizers.grpo import scored
from gymnast_optimizers.moments import Moments
from gymnast_optimizers.rescoring import rescore
from gymnast_optimizers.surrogate import ClippedConfig, ClippedSurrogate

BASELINES = ("batch", "group")


class ReinforcePlusPlus(ClippedSurrogate):
    """What is still earned from an action on, less its KL penalty, whitened over all actions of the batch in all
    processes; the clipped surrogate loss."""

    @dataclass(frozen=True)
    class Config(ClippedConfig):
        clip_high: NotNegative = 0.2
        """Ratios above 1 + clip_high earn no further gain."""
        loss_average: Annotated[str, Choices(*AVERAGES)] = "token"
        """How factors are averaged."""
        baseline: Annotated[str, Choices(*BASELINES)] = "batch"
        """What a reward is compared with first: the mean of the whole "batch", or that of its own "group"
        (REINFORCE++-baseline); the spread is always the batch's."""
        reward_kl: NotNegative = 0.0
        """Weight of the KL divergence from the frozen initial policy in the reward (nats an action): each action pays
        its own and is charged for those after it. Above 0 a copy of the initial policy is held."""
        epsilon: NotNegative = 1e-8
        """Added to the batch's standard deviation."""

    def __init__(self, config: ReinforcePlusPlus.Config | None = None):
        config = config if config is not None else self.Config()
        super().__init__(config)
        self.config: ReinforcePlusPlus.Config = config
        if config.baseline == "group" and config.group_size < 2:
            raise ConfigError(
                "optimizer.args.baseline=group compares a reward with the others of its group, and "
                f"optimizer.args.group_size is {config.group_size}: nothing would be learned. Set group_size to 2 or "
                "more, or baseline=batch."
            )
        self._parts = Parts()
        self._initial: Policy | None = None
        self._fingerprint: str | None = None  # of the initial policy, of the run that is resumed before there is one

    def attach(self, parts: Parts) -> None:
        self._parts = parts

    def extra_modules(self, policy: Policy) -> Mapping[str, nn.Module]:
        # Nothing to train. This is when the policy is there and has not learned, in a resumed run, too.
        if self.config.reward_kl and self._initial is None:
            self._initial = copy.deepcopy(policy).eval().requires_grad_(False)
            refuse_another_initial(policy, self._fingerprint)
            self._fingerprint = fingerprint_of(policy.state_dict())
        return {}

    def state_dict(self) -> dict[str, Any]:
        return {} if self._fingerprint is None else {"initial": self._fingerprint}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Raises `CheckpointError` if the policy began with other weights in the run that is resumed."""
        kept = state.get("initial")
        if self._initial is None:
            self._fingerprint = kept
        else:
            refuse_another_initial(self._initial, kept)

    def keep(self, judged: Judged) -> Tensor:
        """Every group that was judged at all: it is compared with the others of the batch."""
        return judged.valid_GK.any(1)

    def advantages(self, judged: Judged) -> Advantages:
        """(G_s - mean) / (std + epsilon), G_s being the rewards from action s on, less `reward_kl` times the sum of
        log(p / p_initial) from s on; over the actions that count, of rollouts that were judged."""
        valid_B1 = judged.valid_GK.reshape(-1, 1)
        counted_BS = judged.mask_BS & valid_B1
        rewards_BS = self._rewards(judged)
        if self.config.reward_kl:
            rewards_BS = rewards_BS - self.config.reward_kl * self._from_initial(judged)
        rewards_BS = torch.where(counted_BS, rewards_BS, 0.0)
        returns_BS = rewards_BS.flip(1).cumsum(1).flip(1)
        moments = Moments.of(returns_BS, counted_BS, self._parts.processes)
        return Advantages(moments.whiten(returns_BS, counted_BS, self.config.epsilon))

    def _rewards(self, judged: Judged) -> Tensor:
        """Each action's reward, float64 (B, S); the baseline of a group is taken off at the last action that counts,
        as the reward of a judge that looks at the end is given there."""
        rewards_BS, mask_BS = judged.step_rewards_BS.double(), judged.mask_BS
        if self.config.baseline == "batch" or not judged.rollouts:
            return rewards_BS
        values_GK, valid_GK = scored(judged)
        mean_G1 = values_GK.sum(1, keepdim=True) / valid_GK.sum(1, keepdim=True).clamp(min=1)
        baseline_B = mean_G1.expand_as(values_GK).flatten()
        last_B = mask_BS.sum(1).clamp(min=1) - 1
        return rewards_BS.scatter_add(1, last_B[:, None], -baseline_B[:, None])

    def _from_initial(self, judged: Judged) -> Tensor:
        """log(p / p_initial) of each action under the policy that acted, float64 (B, S); 0 of unjudged rollouts."""
        divergence_BS = torch.zeros(judged.mask_BS.shape, dtype=torch.float64)
        rows = judged.valid_GK.flatten().nonzero().flatten().tolist()
        policy = self._parts.policy
        if not rows or self._initial is None or policy is None:
            return divergence_BS
        chosen = [judged.rollouts[row] for row in rows]
        self._initial.to(next(policy.parameters()).device)
        initial_BSD = rescore(self._initial, chosen, self._parts).log_prob_BSD
        acted_BSD = torch.stack([rollout.log_prob_NLD.flatten(0, 1) for rollout in chosen])
        divergence_BS[rows] = (acted_BSD - initial_BSD).double().sum(2)
        return divergence_BS
