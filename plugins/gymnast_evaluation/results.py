"""The evaluation of one policy in one world, and its difference from another: what a training run keeps and reports."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gymnast_core.errors import DataError
from gymnast_core.runs.results import MeasuredWith, by_occurrence
from gymnast_core.statistics import Interval, bootstrap_interval, repeats, score_interval


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
    """Success, or mean reward, of one policy in one world."""

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
    """Mean over the `n` episodes: of success, or of what a reward model of the kind "score" gave."""
    interval: Interval | None
    """95 % Wilson score interval of the success rate (bootstrap of the mean if judgements are fractional, or scores,
    or where tasks occur more than once, over tasks; None where scores that are all equal tell nothing of others)."""
    seconds: float
    episodes: tuple[EpisodeResult, ...]
    reward_kind: str = "success"
    """The reward model's kind: "success" or "score"."""
    cost_usd: float | None = 0.0
    """What judging cost; None: not known."""
    batch_size: int | None = None
    """Rollouts at once: with the seed it says which noise they met; None where it was not noted."""
    measured_with: MeasuredWith = field(default_factory=MeasuredWith)
    """What `world` and `reward_model` name, and the tasks, with their arguments."""


@dataclass(frozen=True)
class Difference:
    """The mean of one policy minus that of another on the same tasks and seeds."""

    mean: float
    interval: Interval | None
    """95 % confidence interval; None where scores differ by the same everywhere, which tells nothing of others."""
    n: int
    method: str


def paired_difference(before: Evaluation, after: Evaluation, *, seed: int = 0) -> Difference:
    """Mean of the episode-wise differences, with a 95 % BCa bootstrap interval over tasks (10,000 resamples).

    Episodes are paired by task, those of a task that occurs more than once in order; those that lack a judgement on
    either side are left out. Raises `DataError` when the evaluations share no task.
    """
    first, second = _judged(before), _judged(after)
    shared = sorted(first.keys() & second.keys())
    if not shared:
        raise DataError(f"The evaluations {before.label!r} and {after.label!r} have no judged task in common.")
    differences, tasks = np.array([second[key] - first[key] for key in shared]), [task for task, _ in shared]
    interval: Interval | None
    if after.reward_kind == "success":
        interval = bootstrap_interval(differences, tasks, bounds=(-1.0, 1.0), seed=seed)
    else:
        interval = score_interval(differences, tasks, seed=seed)
    over = "tasks" if repeats(tasks) else "episodes"
    return Difference(float(differences.mean()), interval, len(shared), f"paired BCa bootstrap over {over}")


def _judged(evaluation: Evaluation) -> dict[tuple[str, int], float]:
    """Values by task and by how often that occurred so far."""
    keys = by_occurrence(episode.task for episode in evaluation.episodes)
    return {
        key: episode.value for key, episode in zip(keys, evaluation.episodes, strict=True) if episode.value is not None
    }


def evaluation_from_json(data: Mapping[str, Any]) -> Evaluation:
    """The inverse of `dataclasses.asdict` after a trip through JSON."""
    episodes = tuple(EpisodeResult(**episode) for episode in data["episodes"])
    interval = None if data["interval"] is None else tuple(data["interval"])
    noted = data.get("measured_with")
    measured_with = MeasuredWith() if noted is None else MeasuredWith.from_json(noted)
    return Evaluation(**{**data, "interval": interval, "episodes": episodes, "measured_with": measured_with})
