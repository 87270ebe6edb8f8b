"""What a policy says of rollouts before the update: what it knows of every decision, and how likely it makes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from gymnast_core.errors import ConfigError
from gymnast_core.interfaces import Parts, Policy
from gymnast_core.rollouts.answers import checked_chunk, checked_evaluation
from gymnast_core.rollouts.batch import decisions, temperatures
from gymnast_core.rollouts.sight import find_sight
from gymnast_core.types import Offers, Rollout

TOGETHER = 64
"""Rollouts that are looked at at once where `loop.micro_batch_size` does not say."""


@dataclass(frozen=True)
class Rescored:
    """What a policy says of B rollouts, on the CPU and without gradients."""

    log_prob_BSD: Tensor
    """float32, at each rollout's own temperature."""
    features_BNF: Tensor | None
    """float32; None if the policy shows nothing."""


@torch.no_grad()
def rescore(policy: Policy, rollouts: Sequence[Rollout], parts: Parts) -> Rescored:
    """Evaluate the decisions of one or more rollouts of one horizon, as many at once as the update does."""
    loop = getattr(parts.config, "loop", None)
    together = getattr(loop, "micro_batch_size", None) or TOGETHER
    device = next(policy.parameters()).device
    log_probs, features = [], []
    for first in range(0, len(rollouts), together):
        some = rollouts[first : first + together]
        observation, chunk = decisions(some, policy.needed, device)
        found = policy.evaluate(observation, chunk, temperature=temperatures(some, device))
        found = checked_evaluation(policy, found, chunk)
        log_probs.append(found.log_prob_BLD.float().reshape(len(some), some[0].horizon, -1).cpu())
        if found.features_BF is not None:
            features.append(found.features_BF.float().reshape(len(some), -1, found.features_BF.shape[-1]).cpu())
    return Rescored(torch.cat(log_probs), torch.cat(features) if features else None)


def with_the_end(rollout: Rollout) -> Rollout:
    """The rollout with one decision more, on its last frame: to ask what the policy knows of the end. The actions of
    that decision are those of the one before, and mean nothing."""

    def longer(values: Tensor) -> Tensor:
        return torch.cat([values, values[-1:]])

    tokens = rollout.tokens_NLD
    return replace(
        rollout,
        actions_NLA=longer(rollout.actions_NLA),
        log_prob_NLD=longer(rollout.log_prob_NLD),
        tokens_NLD=None if tokens is None else longer(tokens),
    )


@torch.no_grad()
def feature_width(policy: Policy, parts: Parts) -> int:
    """F, found by one decision on the first task. Raises `ConfigError` if the policy shows no features."""
    name = type(policy).__name__
    if not len(parts.tasks):
        raise ConfigError(
            f"A critic must know how wide the features of {name} are, and there is no task to ask it with: set "
            "optimizer.args.features."
        )
    task = parts.tasks[0]
    world = parts.world_model
    readings = None if task.proprio_TP is None else task.proprio_TP.shape[1]
    offers = Offers(task.cameras, readings) if world is None else world.offers(world.config)
    sight = find_sight(policy.needed, offers, task)
    frames_TVHWC, proprio_TP = sight.start(task)
    observation = sight.observe(
        frames_TVHWC[None], None if proprio_TP is None else proprio_TP[None], (task.instruction,)
    ).to(next(policy.parameters()).device)
    chunk = policy.act(observation, temperature=1.0, generator=torch.Generator().manual_seed(0))
    chunk = checked_chunk(policy, chunk, 1)
    found = policy.evaluate(observation, chunk, temperature=1.0)
    features_BF = checked_evaluation(policy, found, chunk).features_BF
    if features_BF is None:
        raise ConfigError(
            f"{name} shows nothing of what it knows (no features_BF in `evaluate`), which a critic needs. Choose a "
            "policy that does, e.g. openvla-oft, or an optimizer without a critic: grpo, rloo, reinforce++."
        )
    return features_BF.shape[-1]
