"""PPO with a critic: GAE (arXiv 1506.02438, eq. 11-16), clipped surrogate and clipped value loss (arXiv 1707.06347).

The critic is a head on what the policy knows of an observation, one value a decision. Everything passes through the
public contracts: the critic is an extra module, its returns and old values are targets, and what it remembers beside
weights (the scale of returns) is in `state_dict`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from gymnast_core.config.ranges import Count, Fraction, Positive
from gymnast_core.interfaces import Optimizer, Parts, Policy
from gymnast_core.learning import Advantages, Judged, Minibatch
from gymnast_core.rollouts.batch import decisions, temperatures
from gymnast_core.types import LossSum, Metric


class ActorCritic(Optimizer):
    """Per-step rewards, per-decision values, advantages whitened over the whole batch of all processes."""

    api_version = 2

    @dataclass(frozen=True)
    class Config:
        group_size: Count = 4
        """Episodes of each task draw."""
        minibatch_size: Count = 16
        """Trajectories a gradient step."""
        epochs: Count = 2
        """Passes over each batch."""
        learning_rate: Positive = 0.01
        """Of the policy; the critic's is `critic_scale` times that."""
        critic_scale: Positive = 2.0
        """Factor on the critic's learning rate."""
        clip: Positive = 0.2
        """Of ratios, and of the change of values in units of the returns' scale."""
        discount: Fraction = 0.99
        """Gamma, a decision."""
        trace: Fraction = 0.95
        """Lambda of GAE."""
        features: Count = 16
        """Width of the policy's features."""

    def __init__(self, config: Config | None = None) -> None:
        self.config = config or self.Config()
        self.group_size, self.minibatch_size = self.config.group_size, self.config.minibatch_size
        self.epochs, self.max_grad_norm = self.config.epochs, 1.0
        self._parts = Parts()
        self.scale = 1.0
        """Running standard deviation of returns."""
        generator = torch.Generator().manual_seed(0)
        self.critic = nn.Linear(self.config.features, 1)
        with torch.no_grad():
            self.critic.weight.copy_(torch.randn(self.critic.weight.shape, generator=generator) * 0.1)
            self.critic.bias.zero_()

    def attach(self, parts: Parts) -> None:
        self._parts = parts

    def extra_modules(self, policy: Policy) -> Mapping[str, nn.Module]:
        return {"critic": self.critic}

    def torch_optimizer(self, parameters: Sequence[nn.Parameter]) -> torch.optim.Optimizer:
        critics = {id(parameter) for parameter in self.critic.parameters()}
        groups = [
            {"params": [p for p in parameters if id(p) not in critics]},
            {"params": [p for p in parameters if id(p) in critics], "lr_scale": self.config.critic_scale},
        ]
        return torch.optim.AdamW([group for group in groups if group["params"]], lr=self.config.learning_rate)

    def learning_rate(self, update: int) -> float:
        return self.config.learning_rate

    def keep(self, judged: Judged) -> Tensor:
        """A critic needs no differences within a group; any judged rollout teaches."""
        return judged.valid_GK.any(1)

    def advantages(self, judged: Judged) -> Advantages:
        rewards_BS, mask_BS = judged.step_rewards_BS, judged.mask_BS
        values_BN = self._values(judged)
        count, steps = mask_BS.shape
        length = steps // values_BN.shape[1] if count else 1
        rewards_BN = (rewards_BS * mask_BS).reshape(count, -1, length).sum(2) if count else values_BN
        counted_BN = mask_BS[:, ::length].float() if count else values_BN
        gae_BN = torch.zeros_like(values_BN)
        running_B = torch.zeros(count)
        for n in reversed(range(values_BN.shape[1])):
            last = n + 1 == values_BN.shape[1]
            next_B = torch.zeros(count) if last else values_BN[:, n + 1] * counted_BN[:, n + 1]
            delta_B = rewards_BN[:, n] + self.config.discount * next_B - values_BN[:, n]
            going_on_B = torch.zeros(count) if last else counted_BN[:, n + 1]
            running_B = delta_B + self.config.discount * self.config.trace * going_on_B * running_B
            gae_BN[:, n] = running_B
        valid_B1 = judged.valid_GK.reshape(-1, 1).float()
        weight_BN = counted_BN * valid_B1
        returns_BN = gae_BN + values_BN
        advantages_BN = self._whitened(gae_BN, weight_BN)
        self.scale = 0.9 * self.scale + 0.1 * self._spread(returns_BN, weight_BN)
        # The value of an action is that of its decision.
        return Advantages(
            (advantages_BN * weight_BN).repeat_interleave(length, dim=1),
            {"returns": returns_BN, "values": values_BN},
        )

    def loss(self, minibatch: Minibatch) -> LossSum:
        clip, mask_BS = self.config.clip, minibatch.mask_BS
        # Nothing may come of what stands in masked entries, not even NaN.
        log_ratio_BSD = minibatch.log_prob_BSD - minibatch.old_log_prob_BSD
        ratio_BS = torch.where(mask_BS[..., None], log_ratio_BSD, 0.0).sum(-1).exp()
        advantages_BS = torch.where(mask_BS, minibatch.advantages_BS, 0.0)
        plain_BS = -advantages_BS * ratio_BS
        clipped_BS = -advantages_BS * ratio_BS.clamp(1 - clip, 1 + clip)
        assert minibatch.features_BNF is not None
        value_BN = self.critic(minibatch.features_BNF)[..., 0]
        old_BN, returns_BN = minibatch.targets["values"], minibatch.targets["returns"]
        near_BN = old_BN + (value_BN - old_BN).clamp(-clip * self.scale, clip * self.scale)
        error_BN = torch.maximum((value_BN - returns_BN).square(), (near_BN - returns_BN).square())
        error_BS = error_BN.repeat_interleave(mask_BS.shape[1] // error_BN.shape[1], dim=1)
        total = ((torch.maximum(plain_BS, clipped_BS) + 0.5 * error_BS) * mask_BS).sum()
        weight = mask_BS.sum()
        clipped = ((clipped_BS > plain_BS) & mask_BS).sum() / weight.clamp(min=1)
        value_loss = (error_BS.detach() * mask_BS).sum() / weight.clamp(min=1)
        return LossSum(
            total, weight, {"clip_fraction": Metric(clipped, weight), "value_loss": Metric(value_loss, weight)}
        )

    def state_dict(self) -> dict[str, Any]:
        return {"scale": self.scale}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.scale = state["scale"]

    @torch.no_grad()
    def _values(self, judged: Judged) -> Tensor:
        """What the critic expects at each decision, (B, N)."""
        if not judged.rollouts:
            return torch.zeros(0, 1)
        policy = self._parts.policy
        assert policy is not None
        device = self.critic.weight.device
        observation, chunk = decisions(judged.rollouts, policy.needed, device)
        found = policy.evaluate(observation, chunk, temperature=temperatures(judged.rollouts, device))
        assert found.features_BF is not None
        return self.critic(found.features_BF).reshape(len(judged.rollouts), -1).cpu()

    def _moments(self, values: Tensor, weight: Tensor) -> tuple[float, float]:
        """Mean and standard deviation over all processes."""
        sums = torch.stack([weight.sum(), (weight * values).sum(), (weight * values.square()).sum()]).double()
        count, first, second = self._parts.processes.sum(sums).tolist()
        mean = first / max(count, 1)
        return mean, max(second / max(count, 1) - mean * mean, 0.0) ** 0.5

    def _whitened(self, values: Tensor, weight: Tensor) -> Tensor:
        mean, spread = self._moments(values, weight)
        return (values - mean) / (spread + 1e-6)

    def _spread(self, values: Tensor, weight: Tensor) -> float:
        return self._moments(values, weight)[1]
