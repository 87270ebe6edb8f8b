"""Imagine: roll a policy out in a world (learned or simulated)."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import torch

from gymnast_core.errors import ConfigError
from gymnast_core.interfaces import Policy, WorldModel
from gymnast_core.types import Observation, Rollout, Task


@torch.no_grad()
def imagine(
    policy: Policy,
    world_model: WorldModel,
    tasks: Sequence[Task],
    *,
    horizon: int,
    temperature: float,
    generator: torch.Generator,
    groups: Sequence[int] | None = None,
    batch_size: int = 256,
) -> list[Rollout]:
    """One rollout of `horizon` actions per task, in order.

    `temperature` 0 takes the most likely actions. `groups[i]` labels rollout i (default: its index). At most
    `batch_size` episodes are alive at once. All randomness comes from `generator`. Raises `ConfigError` if the horizon
    is not a multiple of the policy's chunk length.
    """
    if horizon % policy.chunk_length:
        raise ConfigError(
            f"A horizon of {horizon} actions is not a multiple of the policy's chunk length {policy.chunk_length}; "
            f"set loop.horizon={horizon // policy.chunk_length * policy.chunk_length or policy.chunk_length}."
        )
    labels = range(len(tasks)) if groups is None else groups
    rollouts: list[Rollout] = []
    for first in range(0, len(tasks), batch_size):
        batch = tasks[first : first + batch_size]
        state = world_model.reset(batch, generator=generator)
        instructions = tuple(task.instruction for task in batch)
        frames = [torch.stack([task.frames_THWC[-1] for task in batch])[:, None]]
        chunks = []
        for _ in range(horizon // policy.chunk_length):
            observation = Observation(images_BVHWC=frames[-1][:, -1:], instructions=instructions)
            chunks.append(policy.act(observation, temperature=temperature, generator=generator))
            frames.append(world_model.step(state, chunks[-1].actions_BLA).cpu())
        frames_BTHWC = torch.cat(frames, dim=1)
        actions_BNLA = torch.stack([chunk.actions_BLA.cpu() for chunk in chunks], dim=1)
        log_prob_BNLD = torch.stack([chunk.log_prob_BLD.cpu() for chunk in chunks], dim=1)
        tokens = [chunk.tokens_BLD.cpu() for chunk in chunks if chunk.tokens_BLD is not None]
        tokens_BNLD = torch.stack(tokens, dim=1) if tokens else None
        rollouts += [
            Rollout(
                task=task,
                group=labels[first + i],
                frames_THWC=frames_BTHWC[i],
                actions_NLA=actions_BNLA[i],
                log_prob_NLD=log_prob_BNLD[i],
                temperature=temperature,
                tokens_NLD=None if tokens_BNLD is None else tokens_BNLD[i],
                outcome=outcome,
            )
            for i, (task, outcome) in enumerate(zip(batch, world_model.outcomes(state), strict=True))
        ]
    return rollouts


def rollout_to_state(rollout: Rollout) -> dict[str, Any]:
    """A rollout as nested dicts of tensors and plain values, for snapshots."""
    return {**vars(rollout), "task": asdict(rollout.task)}


def rollout_from_state(state: dict[str, Any]) -> Rollout:
    """The inverse of `rollout_to_state`."""
    return Rollout(**(state | {"task": Task(**state["task"])}))
