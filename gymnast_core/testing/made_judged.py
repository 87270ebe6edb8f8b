"""What the check of optimizers feeds them: a policy that stands in, judged groups, minibatches."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from gymnast_core.interfaces import Policy
from gymnast_core.learning import Advantages, Judged, Minibatch
from gymnast_core.rollouts.batch import decisions, temperatures
from gymnast_core.testing.making import CHUNKS, camera_names, make_rollouts, make_tasks, seeded, uniform
from gymnast_core.types import ActionChunk, Evaluation, Needs, Observation, Reward, Rollout, Task

FEATURES = 16
"""What the stand-in policy knows of an observation."""


class StandInPolicy(Policy):
    """A Gaussian around what an observation's colours say; what optimizers that ask their policy are checked with."""

    api_version = 2

    @dataclass(frozen=True)
    class Config:
        """Nothing to set."""

    chunk_length, action_dim = 3, 2

    def __init__(self, config: Config | None = None) -> None:
        super().__init__()
        self.config = config or self.Config()
        self.look = nn.Parameter(uniform((3, FEATURES), seed=20))
        self.decide = nn.Parameter(uniform((FEATURES, self.chunk_length * self.action_dim), seed=21))

    @torch.no_grad()
    def act(
        self, observation: Observation, *, temperature: float = 1.0, generator: torch.Generator | None = None
    ) -> ActionChunk:
        _, means_BLA = self._means(observation)
        noise_BLA = torch.randn(means_BLA.shape, generator=generator)
        return self._scored(means_BLA, means_BLA + temperature * noise_BLA, temperature or 1.0)

    def evaluate(
        self, observation: Observation, chunk: ActionChunk, *, temperature: float | Tensor = 1.0
    ) -> Evaluation:
        features_BF, means_BLA = self._means(observation)
        scored = self._scored(means_BLA, chunk.actions_BLA, temperature)
        return Evaluation(scored.log_prob_BLD, torch.full_like(scored.log_prob_BLD, 1.42), features_BF)

    def _means(self, observation: Observation) -> tuple[Tensor, Tensor]:
        colours_BC = observation.latest_BVHWC.float().mean((1, 2, 3)) / 255
        features_BF = torch.tanh(colours_BC @ self.look)
        return features_BF, (features_BF @ self.decide).unflatten(1, (self.chunk_length, self.action_dim))

    @staticmethod
    def _scored(means_BLA: Tensor, actions_BLA: Tensor, temperature: float | Tensor) -> ActionChunk:
        spread = torch.as_tensor(temperature, dtype=torch.float32).reshape(-1, 1, 1)
        log_prob_BLA = -0.5 * ((actions_BLA - means_BLA) / spread).square() - spread.log() - 0.5 * math.log(math.tau)
        return ActionChunk(actions_BLA, log_prob_BLA)


def tasks_for(policy: Policy) -> list[Task]:
    """Two small tasks that show what the policy needs."""
    needs: Needs = policy.needed
    size = getattr(policy.config, "image_size", 8)
    return make_tasks(
        2, size if isinstance(size, int) else 64, cameras=camera_names(needs.cameras), proprio_dim=needs.proprio
    )


def decided(policy: Policy, tasks: Sequence[Task], count: int) -> list[Rollout]:
    """`count` rollouts in which the policy made every decision, on frames of noise."""
    made = [tasks[index % len(tasks)] for index in range(count)]
    length = policy.chunk_length
    rollouts = make_rollouts(made, policy.action_dim, CHUNKS, length)
    device = next(policy.parameters()).device
    observation, _ = decisions(rollouts, policy.needed, device)
    chunk = policy.act(observation, temperature=1.0, generator=seeded(22))
    tokens = chunk.tokens_BLD
    return [
        replace(
            rollout,
            actions_NLA=chunk.actions_BLA[first : first + CHUNKS].cpu(),
            log_prob_NLD=chunk.log_prob_BLD[first : first + CHUNKS].cpu(),
            tokens_NLD=None if tokens is None else tokens[first : first + CHUNKS].cpu(),
        )
        for rollout, first in zip(rollouts, range(0, CHUNKS * count, CHUNKS), strict=True)
    ]


def judge(rollouts: Sequence[Rollout], values_GK: Tensor, junk: Mapping[str, Any] | None = None) -> Judged:
    """Rewards of these values; NaN: not judged, what else the reward holds is `junk`. Every third is done early."""
    rewards = []
    for row, value in enumerate(values_GK.flatten().tolist()):
        if math.isnan(value):
            rewards.append(Reward(None, error="not judged", **(junk or {})))
        else:
            rewards.append(Reward(value, finish_step=2 + row % 2 if row % 3 == 0 else None))
    return Judged(tuple(rollouts), tuple(rewards), values_GK.shape[1])


def reordered(judged: Judged, rows: Sequence[int]) -> Judged:
    """The same rollouts with their rewards in another order."""
    rollouts = tuple(judged.rollouts[row] for row in rows)
    return replace(judged, rollouts=rollouts, rewards=tuple(judged.rewards[row] for row in rows))


@dataclass(frozen=True)
class Material:
    """Trajectories to learn from, whose log-probabilities have moved a little since they were sampled."""

    policy: Policy
    judged: Judged
    advantages: Advantages
    rows: list[int]
    """Those that make up a minibatch."""
    has_reference: bool

    def minibatch(self, rows: Sequence[int], leaves: Leaves, advantages_BS: Tensor, junk: float = 0.0) -> Minibatch:
        """The part of those rows. What is masked holds `junk`."""
        places = torch.tensor([self.rows.index(row) for row in rows])
        rollouts = tuple(self.judged.rollouts[row] for row in rows)
        device = leaves.log_prob_BSD.device
        observation, chunk = decisions(rollouts, self.policy.needed, device)
        mask_BS = self.judged.mask_BS[torch.tensor(rows)].to(device)
        old_BSD = chunk.log_prob_BLD.reshape(leaves.log_prob_BSD[places].shape)

        def spoilt(values: Tensor) -> Tensor:
            mask = mask_BS if values.ndim == 2 else mask_BS[..., None].expand_as(values)
            return values if junk == 0.0 else torch.where(mask, values, junk)

        features_BNF = leaves.features_BNF
        return Minibatch(
            rollouts=rollouts,
            observation=observation,
            chunk=chunk,
            log_prob_BSD=spoilt(leaves.log_prob_BSD[places]),
            entropy_BSD=spoilt(leaves.entropy_BSD[places]),
            old_log_prob_BSD=spoilt(old_BSD),
            advantages_BS=spoilt(advantages_BS[torch.tensor(rows)].to(device)),
            mask_BS=mask_BS,
            reference_log_prob_BSD=spoilt(old_BSD - 0.1) if self.has_reference else None,
            features_BNF=None if features_BNF is None else features_BNF[places],
            targets={name: target[torch.tensor(rows)].to(device) for name, target in self.advantages.targets.items()},
        )

    def leaves(self, moved: float = 0.2) -> Leaves:
        """The minibatch's differentiable inputs; what the policy says and knows has changed by up to `moved`."""
        rollouts = [self.judged.rollouts[row] for row in self.rows]
        device = next(self.policy.parameters()).device
        observation, chunk = decisions(rollouts, self.policy.needed, device)
        found = self.policy.evaluate(observation, chunk, temperature=temperatures(rollouts, device))
        count = len(rollouts)
        old_BSD = chunk.log_prob_BLD.reshape(count, rollouts[0].horizon, -1)

        def leaf(values: Tensor, change: float) -> Tensor:
            return (values.detach() + change * uniform(values.shape, seed=23).to(device)).requires_grad_()

        features = found.features_BF
        return Leaves(
            leaf(old_BSD, moved),
            leaf(found.entropy_BLD.reshape(old_BSD.shape), 0.0),
            None if features is None else leaf(features.reshape(count, CHUNKS, -1), moved),
        )


@dataclass(frozen=True)
class Leaves:
    """What a loss may send gradients to, beside its own modules."""

    log_prob_BSD: Tensor
    entropy_BSD: Tensor
    features_BNF: Tensor | None

    @property
    def tensors(self) -> list[Tensor]:
        return [leaf for leaf in (self.log_prob_BSD, self.entropy_BSD, self.features_BNF) if leaf is not None]
