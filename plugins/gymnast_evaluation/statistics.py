"""Results of evaluations and what can be said from them: intervals over episodes, differences paired by task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from gymnast_core.errors import DataError


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
    """95 % interval of the mean of values in [0, 1]: Wilson's score interval if all are 0 or 1, else BCa bootstrap."""
    if not len(values):
        return (0.0, 1.0)
    array = np.asarray(values, dtype=float)
    if np.isin(array, (0.0, 1.0)).all():
        interval = stats.binomtest(int(array.sum()), len(array)).proportion_ci(0.95, method="wilson")
        return (float(interval.low), float(interval.high))
    return _bootstrap(array, (0.0, 1.0), seed)


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
        float(differences.mean()),
        _bootstrap(differences, (-1.0, 1.0), seed),
        len(shared),
        "paired BCa bootstrap over episodes",
    )


def _bootstrap(values: np.ndarray, bounds: tuple[float, float], seed: int) -> tuple[float, float]:
    """95 % BCa bootstrap interval (Efron 1987) of the mean of values within `bounds`.

    Equal values say nothing about the spread of others, and a resample of them would claim certainty. Then the share
    of what was not seen is bounded as in Wilson's interval, z² / (n + z²), and placed at either bound.
    """
    if np.ptp(values) == 0:
        z2 = stats.norm.ppf(0.975) ** 2
        unseen = z2 / (len(values) + z2)
        low, high = ((1 - unseen) * values[0] + unseen * bound for bound in bounds)
        return (float(low), float(high))
    result = stats.bootstrap(
        (values,), np.mean, n_resamples=10_000, method="BCa", rng=np.random.default_rng(seed), batch=1000
    )
    return (float(result.confidence_interval.low), float(result.confidence_interval.high))


def evaluation_from_json(data: Mapping[str, Any]) -> Evaluation:
    """The inverse of `dataclasses.asdict` after a trip through JSON."""
    episodes = tuple(EpisodeResult(**episode) for episode in data["episodes"])
    return Evaluation(**{**data, "interval": tuple(data["interval"]), "episodes": episodes})
