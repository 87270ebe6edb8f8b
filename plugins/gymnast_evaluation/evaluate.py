"""Monte-Carlo evaluation: roll a policy out once per task in a world and judge every episode."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np

from gymnast_core.config import ComponentConfig
from gymnast_core.errors import DataError
from gymnast_core.interfaces import Policy, RewardModel, WorldModel
from gymnast_core.registry import registries
from gymnast_core.rollout import imagine
from gymnast_core.snapshot import seeded_generator
from gymnast_core.types import Reward, Rollout, Task
from gymnast_evaluation.statistics import EpisodeResult, Evaluation, success_interval


def evaluate(
    policy: Policy,
    world: WorldModel,
    reward_model: RewardModel,
    tasks: Sequence[Task],
    *,
    label: str,
    names: tuple[str, str],
    horizon: int,
    temperature: float = 0.0,
    seed: int = 0,
    iteration: int = 0,
    batch_size: int = 256,
) -> tuple[Evaluation, list[Rollout], list[Reward]]:
    """Roll the policy out once per task and judge every episode. `names` are the world's and the judge's names.

    Raises `DataError` if no episode could be judged.
    """
    began = time.monotonic()
    was_training = policy.training
    policy.eval()
    generator = seeded_generator(seed, "evaluate")
    try:
        rollouts = imagine(
            policy, world, tasks, horizon=horizon, temperature=temperature, generator=generator, batch_size=batch_size
        )
    finally:
        policy.train(was_training)
    rewards = reward_model.score(rollouts)
    episodes = tuple(
        EpisodeResult(r.task.id, r.task.instruction, reward.value, reward.partial, reward.error)
        for r, reward in zip(rollouts, rewards, strict=True)
    )
    values = [episode.value for episode in episodes if episode.value is not None]
    if not values:
        raise DataError(
            f"The reward model {names[1]!r} could judge none of the {len(episodes)} episodes of {label!r} in "
            f"{names[0]!r}. First error: {episodes[0].error}"
        )
    result = Evaluation(
        label=label,
        iteration=iteration,
        world=names[0],
        reward_model=names[1],
        temperature=temperature,
        horizon=horizon,
        seed=seed,
        n=len(values),
        unscored=len(episodes) - len(values),
        rate=float(np.mean(values)),
        interval=success_interval(values, seed=seed),
        seconds=time.monotonic() - began,
        episodes=episodes,
    )
    return result, rollouts, rewards


def load_tasks(config: ComponentConfig, limit: int | None = None) -> Sequence[Task]:
    """The tasks of a dataset component, at most `limit` of them. Raises `DataError` if there are none."""
    tasks = registries().datasets.build(config.name, config.args, key="tasks").tasks()
    if not len(tasks):
        raise DataError(f"The dataset {config.name!r} holds no tasks.")
    return tasks if limit is None else [tasks[i] for i in range(min(limit, len(tasks)))]
