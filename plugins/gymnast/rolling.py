"""A policy acts in a world, on parts that were built by name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from gymnast.films import ShownRollout

if TYPE_CHECKING:
    from gymnast_core.interfaces import Policy, RewardModel, WorldModel
    from gymnast_core.types import Task


def roll_out(
    policy: Policy,
    world_model: WorldModel,
    tasks: Sequence[Task],
    *,
    horizon: int,
    reward_model: RewardModel | None = None,
    temperature: float = 0.0,
    seed: int = 0,
) -> list[ShownRollout]:
    """Let the policy act on each task, as one batch, and ask the judge, if there is one.

    `horizon` counts control steps, a multiple of the policy's chunk length; `temperature` 0 is greedy; the same `seed`
    gives the same rollouts. Raises `ConfigError` or `DataError` for parts that do not fit together.

    >>> gymnast.roll_out(policy, world, gymnast.tasks("tabletop", count=2), horizon=16)[0]
    """
    from gymnast_core.errors import DataError
    from gymnast_core.interfaces import Parts
    from gymnast_core.rollouts.imagine import check_horizon
    from gymnast_core.training.judge import judge
    from gymnast_evaluation.evaluate import roll_out as batch

    if not len(tasks):
        raise DataError("There are no tasks to act on. Give some: gymnast.tasks(DATASET, …).")
    check_horizon(policy, horizon, "horizon")
    parts = Parts(policy=policy, world_model=world_model, reward_model=reward_model, tasks=tasks)
    parts.attach()
    rollouts = batch(policy, world_model, tasks, first=0, horizon=horizon, temperature=temperature, seed=seed)
    if reward_model is None:
        return [ShownRollout(rollout) for rollout in rollouts]
    rewards = judge(reward_model, rollouts)
    return [ShownRollout(rollout, reward) for rollout, reward in zip(rollouts, rewards, strict=True)]
