"""Monte-Carlo evaluation of policies: success in a world, with intervals over episodes, paired where tasks are shared."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from gymnast_core.config import ComponentConfig
from gymnast_core.errors import DataError
from gymnast_core.interfaces import Policy, RewardModel, WorldModel
from gymnast_core.registry import registries
from gymnast_core.rollout import imagine
from gymnast_core.snapshot import seeded_generator
from gymnast_core.types import Reward, Rollout, Task


@dataclass(frozen=True)
class EpisodeResult:
    """The judgement of one evaluated episode."""

    task: str
    instruction: str
    value: float | None
    partial: float | None
    error: str | None


@dataclass(frozen=True)
class Evaluation:
    """Success of one policy in one world."""

    label: str
    iteration: int
    world: str
    reward_model: str
    temperature: float
    horizon: int
    seed: int
    n: int
    """Episodes with a judgement."""
    unscored: int
    """Episodes whose judgement failed; they are in neither numerator nor denominator."""
    rate: float
    """Mean success over the `n` episodes."""
    interval: tuple[float, float]
    """95 % Wilson score interval of the success rate (bootstrap of the mean if judgements are fractional)."""
    seconds: float
    episodes: tuple[EpisodeResult, ...]


@dataclass(frozen=True)
class Difference:
    """Success of one policy minus that of another on the same tasks and seeds."""

    mean: float
    interval: tuple[float, float]
    """95 % confidence interval."""
    n: int
    method: str


def success_interval(values: Sequence[float], *, seed: int = 0) -> tuple[float, float]:
    """95 % interval of a mean in [0, 1]: Wilson's score interval for 0/1 values, else a percentile bootstrap."""
    if not len(values):
        return (0.0, 1.0)
    array = np.asarray(values, dtype=float)
    if np.isin(array, (0.0, 1.0)).all():
        interval = stats.binomtest(int(array.sum()), len(array)).proportion_ci(0.95, method="wilson")
        return (float(interval.low), float(interval.high))
    return _bootstrap(array, seed)


def paired_difference(before: Evaluation, after: Evaluation, *, seed: int = 0) -> Difference:
    """Mean of the episode-wise differences, with a 95 % BCa bootstrap interval over episodes (10,000 resamples).

    Episodes are paired by task; those that lack a judgement on either side are left out. Raises `DataError` when the
    evaluations share no task.
    """
    first = {episode.task: episode.value for episode in before.episodes if episode.value is not None}
    second = {episode.task: episode.value for episode in after.episodes if episode.value is not None}
    shared = sorted(first.keys() & second.keys())
    if not shared:
        raise DataError(f"The evaluations {before.label!r} and {after.label!r} have no judged task in common.")
    differences = np.array([second[task] - first[task] for task in shared])
    return Difference(
        float(differences.mean()), _bootstrap(differences, seed), len(shared), "paired BCa bootstrap over episodes"
    )


def _bootstrap(values: np.ndarray, seed: int) -> tuple[float, float]:
    if len(values) < 2 or np.ptp(values) == 0:
        return (float(values.mean()), float(values.mean()))
    result = stats.bootstrap(
        (values,), np.mean, n_resamples=10_000, method="BCa", rng=np.random.default_rng(seed), batch=1000
    )
    return (float(result.confidence_interval.low), float(result.confidence_interval.high))


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
    """Roll the policy out once per task and judge every episode. `names` are the world's and the judge's names."""
    began = time.monotonic()
    was_training = policy.training
    policy.eval()
    generator = seeded_generator(seed, "evaluate")
    rollouts = imagine(
        policy, world, tasks, horizon=horizon, temperature=temperature, generator=generator, batch_size=batch_size
    )
    policy.train(was_training)
    rewards = reward_model.score(rollouts)
    episodes = tuple(
        EpisodeResult(r.task.id, r.task.instruction, reward.value, reward.partial, reward.error)
        for r, reward in zip(rollouts, rewards, strict=True)
    )
    values = [episode.value for episode in episodes if episode.value is not None]
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
        rate=float(np.mean(values)) if values else float("nan"),
        interval=success_interval(values, seed=seed),
        seconds=time.monotonic() - began,
        episodes=episodes,
    )
    return result, rollouts, rewards


def evaluation_from_json(data: Mapping[str, Any]) -> Evaluation:
    """The inverse of `dataclasses.asdict` after a trip through JSON."""
    episodes = tuple(EpisodeResult(**episode) for episode in data["episodes"])
    return Evaluation(**{**data, "interval": tuple(data["interval"]), "episodes": episodes})


def load_tasks(config: ComponentConfig, limit: int | None = None) -> Sequence[Task]:
    """The tasks of a dataset component, at most `limit` of them. Raises `DataError` if there are none."""
    tasks = registries().datasets.build(config.name, config.args).tasks()
    if not len(tasks):
        raise DataError(f"The dataset {config.name!r} holds no tasks.")
    return tasks if limit is None else [tasks[i] for i in range(min(limit, len(tasks)))]
