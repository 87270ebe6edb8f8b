"""Monte-Carlo evaluation: roll a policy out in a world and judge every episode."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from gymnast_core.config import ComponentConfig
from gymnast_core.errors import ConfigError, DataError
from gymnast_core.interfaces import Policy, RewardModel, WorldModel
from gymnast_core.plugins.compose import registries
from gymnast_core.rollouts.imagine import imagine
from gymnast_core.seeds import seeded_generator
from gymnast_core.statistics import success_interval
from gymnast_core.types import Reward, Rollout, Task
from gymnast_evaluation.results import EpisodeResult, Evaluation


def roll_out(
    policy: Policy,
    world: WorldModel,
    tasks: Sequence[Task],
    *,
    first: int,
    horizon: int,
    temperature: float,
    seed: int,
) -> list[Rollout]:
    """One batch of rollouts, whose first trial has the number `first`.

    All noise comes from `seed` and `first`: the batch is the same whatever was rolled out before it, and two policies
    meet the same noise.
    """
    was_training = policy.training
    policy.eval()
    try:
        return imagine(
            policy, world, tasks, horizon=horizon, temperature=temperature, batch_size=len(tasks),
            generator=seeded_generator(seed, "evaluate", first), groups=range(first, first + len(tasks)),
        )  # fmt: skip
    finally:
        policy.train(was_training)


def judge_again(
    reward_model: RewardModel, rollouts: Sequence[Rollout], rewards: Sequence[Reward], times: int
) -> list[Reward]:
    """The rewards, with those that are errors asked for anew up to `times` times; costs add up."""
    rewards = list(rewards)
    for _ in range(times):
        unknown = [i for i, reward in enumerate(rewards) if reward.error is not None]
        again = reward_model.score([rollouts[i] for i in unknown]) if unknown else []
        for i, reward in zip(unknown, again, strict=True):
            rewards[i] = replace(reward, cost_usd=reward.cost_usd + rewards[i].cost_usd)
    return rewards


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
    rollouts: list[Rollout] = []
    for first in range(0, len(tasks), batch_size):
        rollouts += roll_out(
            policy, world, tasks[first : first + batch_size], first=first, horizon=horizon, temperature=temperature,
            seed=seed,
        )  # fmt: skip
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
    return tasks if limit is None else _First(tasks, limit)


class _First(Sequence[Task]):
    """The first tasks of a dataset, still read when they are indexed."""

    def __init__(self, tasks: Sequence[Task], limit: int) -> None:
        self._tasks, self._length = tasks, min(limit, len(tasks))

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index):  # type: ignore[no-untyped-def]
        if isinstance(index, slice):
            return [self._tasks[i] for i in range(*index.indices(self._length))]
        if not -self._length <= index < self._length:
            raise IndexError(f"No task {index}; there are {self._length}.")
        return self._tasks[index % self._length]


def choose_device(name: str) -> torch.device:
    """The torch device of that name; "auto" is cuda where there is one. Raises `ConfigError` if it cannot be used."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ConfigError(f"device={name} cannot be used here: {reason} Set device=auto, cpu or cuda.") from error
    return device
