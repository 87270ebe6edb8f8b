"""Monte-Carlo evaluation of policies: success in a world, with intervals over episodes, paired where tasks are shared."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from gymnast_core.config import ComponentConfig, EvaluateConfig, to_yaml
from gymnast_core.errors import ConfigError, DataError
from gymnast_core.hooks import plugin_manager
from gymnast_core.interfaces import Policy, RewardModel, WorldModel
from gymnast_core.registry import registries
from gymnast_core.rollout import imagine
from gymnast_core.runfolder import RunFolder, default_run_path
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


def evaluate_command(config: EvaluateConfig) -> dict[str, Any]:
    """`gymnast evaluate`: every policy in every world on the same tasks and seeds; writes and returns the results."""
    if not config.policies or not config.worlds:
        raise ConfigError(
            "`gymnast evaluate` needs at least one policy and one world: policies.NAME.name=… worlds.NAME.name=…"
        )
    missing = sorted(set(config.worlds) - set(config.rewards))
    if missing:
        raise ConfigError(f"Every world needs a judge: set rewards.{missing[0]}.name=… (e.g. environment).")
    known = registries()
    tasks = load_tasks(config.tasks, config.episodes)
    path = Path(config.output) if config.output else default_run_path("evaluate")
    folder = RunFolder.create(path, to_yaml(config))
    hook = plugin_manager().hook
    results: dict[str, dict[str, Evaluation]] = {}
    for label, part in config.policies.items():
        policy = known.policies.build(part.name, part.args)
        results[label] = {}
        for world_label, world_part in config.worlds.items():
            judge_part = config.rewards[world_label]
            world = known.world_models.build(world_part.name, world_part.args)
            judge = known.reward_models.build(judge_part.name, judge_part.args)
            name = f"{label}-in-{world_label}"
            result, rollouts, rewards = evaluate(
                policy, world, judge, tasks, label=name, names=(world_part.name, judge_part.name),
                horizon=config.horizon, temperature=config.temperature, seed=config.seed, batch_size=config.batch_size,
            )  # fmt: skip
            results[label][world_label] = result
            folder.write_json(f"evaluations/{name}.json", asdict(result))
            hook.gymnast_evaluation_done(config=config, label=name, world=world_part.name, rollouts=rollouts, rewards=rewards)
            world.close()
            judge.close()
    summary = summarise(results)
    folder.write_json("summary.json", summary)
    hook.gymnast_run_done(config=config, summary=summary)
    return {"output": str(path), **summary}


def summarise(results: Mapping[str, Mapping[str, Evaluation]]) -> dict[str, Any]:
    """Rates and intervals per policy and world, and differences from the first policy, paired by task."""
    first = next(iter(results))
    table = {
        label: {w: {"rate": e.rate, "interval": list(e.interval), "n": e.n, "unscored": e.unscored} for w, e in row.items()}
        for label, row in results.items()
    }
    differences = {
        label: {world: asdict(paired_difference(results[first][world], row[world])) for world in row}
        for label, row in results.items()
        if label != first
    }
    return {"results": table, "differences_from": first, "differences": differences}


def read_evaluation(path: Path) -> Evaluation:
    """An evaluation written by a run."""
    return evaluation_from_json(json.loads(path.read_text()))
