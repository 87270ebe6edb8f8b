"""Does an imagined world tell what another world (a simulator, a robot) would have said of the same policies?

Shapes: P policies, U trials, C clusters of trials that start alike, T tasks, M pairs of rates, R resamples. Rates are
compared over the trials that were judged in both worlds.

Two intervals say two things. "over policies" (Fisher's z) is about other policies drawn like these, and knows nothing
of how exactly each was measured. "over trials" (bootstrap of starts) is about other starts, for these very policies.
Starts are drawn within tasks; tasks of a single start, from which only that one could be drawn, are drawn from together
(`merged_strata`). Where a rate rests on one start alone, nothing says how much another would change: no interval.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gymnast_core.statistics import (
    CONFIDENCE,
    RESAMPLES,
    Interval,
    biased_interval,
    bootstrap_interval,
    cluster_index,
    merged_strata,
    resampled_means,
)
from gymnast_core.success import SUCCESS_ABOVE

OUTCOMES = ("success", "failure", "unscored")


@dataclass(frozen=True)
class Correlation:
    """A correlation coefficient; None where it is not defined (fewer than 3 pairs, or rates that are all equal)."""

    value: float | None
    over_policies: Interval | None
    """Fisher's z; None for fewer than 4 pairs, a perfect correlation, and pairs that are no independent draws."""
    over_trials: Interval | None
    """Bootstrap of starts; None where one of the rates rests on a single start."""
    n: int
    """Pairs of rates."""


@dataclass(frozen=True)
class Estimate:
    """A number with its bootstrap interval over trials."""

    value: float
    over_trials: Interval | None
    """None where a rate behind it rests on a single start."""


@dataclass(frozen=True)
class Agreement:
    """Two worlds' judgements of the same policies on the same trials."""

    policies: tuple[str, ...]
    imagined: tuple[float, ...]
    """Mean score of each policy in the imagined world."""
    reference: tuple[float, ...]
    tasks: tuple[str, ...]
    imagined_by_task: tuple[tuple[float | None, ...], ...]
    """[policy][task]; None where no trial was judged in both worlds."""
    reference_by_task: tuple[tuple[float | None, ...], ...]
    trials: int
    """Trials judged in both worlds, over all policies."""
    pearson: Correlation
    spearman: Correlation
    pearson_by_task: Correlation | None
    """Over policy x task cells; None for a single task."""
    spearman_by_task: Correlation | None
    mean_maximum_rank_violation: Estimate
    """In units of the reference's reward."""
    mean_difference: Estimate | None
    """Imagined minus reference; None unless both judges tell success."""
    table: dict[str, dict[str, int]] | None
    """Outcome imagined -> outcome in the reference -> trials, where both judges tell success: a value of 0.5 or more
    is one."""
    same_outcome: float | None
    """Share of the trials judged in both worlds that have one outcome in both."""
    kappa: float | None
    """Cohen's kappa of those outcomes: 0 is chance, 1 is one verdict."""
    policies_of_one_start: tuple[str, ...] = ()
    """Policies whose rates rest on one start alone: why what compares policies has no interval over trials."""
    tasks_of_one_start: int = 0
    """Tasks in which a policy's rate rests on one start alone: why what compares policies x tasks has none."""


def agreement(
    names: Sequence[str],
    imagined_PU: NDArray[Any],
    reference_PU: NDArray[Any],
    clusters_U: NDArray[Any],
    tasks_U: NDArray[Any],
    *,
    kinds: tuple[str, str] = ("success", "success"),
    seed: int = 0,
) -> Agreement | None:
    """Compare rewards (NaN is unjudged) of the same trials in two worlds; None if no trial was judged in both.

    `kinds` are those of the two reward models: only what tells success is compared trial by trial. Policies without a
    trial judged in both worlds are left out.
    """
    both_PU = ~np.isnan(imagined_PU) & ~np.isnan(reference_PU)
    kept = np.flatnonzero(both_PU.any(axis=1))
    if not len(kept):
        return None
    both = both_PU[kept]
    clusters = cluster_index(clusters_U)
    tasks, task_U = np.unique(tasks_U, return_inverse=True)
    worlds = [np.where(both, scores[kept], 0.0) for scores in (imagined_PU, reference_PU)]
    overall = _Rates(worlds, both, clusters, np.zeros(len(task_U), dtype=int), task_U, seed)
    cells = _Rates(worlds, both, clusters, task_U, task_U, seed) if len(tasks) > 1 else overall
    alike = kinds == ("success", "success")
    table = outcome_table(imagined_PU, reference_PU) if alike else None
    return Agreement(
        policies=tuple(names[int(index)] for index in kept),
        imagined=tuple(map(float, overall.imagined_M)),
        reference=tuple(map(float, overall.reference_M)),
        tasks=tuple(map(str, tasks)),
        imagined_by_task=_rows(cells.imagined_M, len(kept)),
        reference_by_task=_rows(cells.reference_M, len(kept)),
        trials=int(both.sum()),
        pearson=overall.correlation(spearman=False, independent=True),
        spearman=overall.correlation(spearman=True, independent=True),
        pearson_by_task=cells.correlation(spearman=False, independent=False) if len(tasks) > 1 else None,
        spearman_by_task=cells.correlation(spearman=True, independent=False) if len(tasks) > 1 else None,
        mean_maximum_rank_violation=Estimate(
            overall.rank_violation(),
            overall.rank_violation_interval(1.0 if kinds[1] == "success" else math.inf),
        ),
        mean_difference=_mean_difference(worlds[0] - worlds[1], both, clusters, seed) if alike else None,
        table=table,
        same_outcome=None if table is None else _same_outcome(table),
        kappa=None if table is None else cohens_kappa(table),
        policies_of_one_start=tuple(names[int(kept[row])] for row in np.flatnonzero(overall.alone_PG.any(axis=1))),
        tasks_of_one_start=int(cells.alone_PG.any(axis=0).sum()) if len(tasks) > 1 else 0,
    )


def fisher_interval(r: float, n: int, *, spearman: bool = False) -> Interval | None:
    """Fisher's z interval (Biometrika 10, 1915) of a correlation over n independent pairs.

    Spearman's variance is that of Bonett and Wright (Psychometrika 65, 2000): (1 + r²/2) / (n - 3). None for n < 4, and
    for r = ±1, where z is infinite: a perfect order of a few policies is no certainty about others.
    """
    if n < 4 or math.isnan(r) or abs(r) >= 1 - 1e-12:
        return None
    from scipy import stats

    half = stats.norm.ppf(0.5 + CONFIDENCE / 2) * math.sqrt((1 + r * r / 2 if spearman else 1.0) / (n - 3))
    return (math.tanh(math.atanh(r) - half), math.tanh(math.atanh(r) + half))


def correlations(first_RM: NDArray[Any], second_RM: NDArray[Any], *, spearman: bool = False) -> NDArray[Any]:
    """Pearson's (or Spearman's) correlation of each row over the pairs known in both; NaN where it is not defined."""
    known_RM = ~np.isnan(first_RM) & ~np.isnan(second_RM)
    first, second = np.where(known_RM, first_RM, np.nan), np.where(known_RM, second_RM, np.nan)
    if spearman:
        from scipy import stats

        # Rates that differ by rounding only are ties.
        first, second = (
            stats.rankdata(np.round(side, 12), axis=1, nan_policy="omit") if side.size else side
            for side in (first, second)
        )
    n_R1 = known_RM.sum(axis=1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        first, second = (
            np.nan_to_num(side - np.nansum(side, axis=1, keepdims=True) / n_R1) for side in (first, second)
        )
        scale_R = np.sqrt((first**2).sum(axis=1) * (second**2).sum(axis=1))
        found_R = (first * second).sum(axis=1) / scale_R
    undefined_R = (n_R1[:, 0] < 3) | (scale_R < 1e-12)
    return np.where(undefined_R, np.nan, np.clip(found_R, -1.0, 1.0))


def mean_maximum_rank_violation(imagined: ArrayLike, reference: ArrayLike) -> float:
    """MMRV (SIMPLER, arXiv 2405.05941, eq. 1-2), in units of the score: 0 when both worlds rank alike.

    Two policies that the worlds order differently violate the ranking by their distance in the reference; each policy
    counts its worst violation. A tie in one world only is a violation as well.
    """
    rows = (np.asarray(side, dtype=float)[None] for side in (imagined, reference))
    return float(mean_maximum_rank_violations(*rows)[0])


def mean_maximum_rank_violations(imagined_RM: NDArray[Any], reference_RM: NDArray[Any]) -> NDArray[Any]:
    """MMRV of each row, (R,)."""
    imagined, reference = np.round(imagined_RM, 12), np.round(reference_RM, 12)
    differs = (imagined[:, :, None] < imagined[:, None, :]) != (reference[:, :, None] < reference[:, None, :])
    distance = np.abs(reference[:, :, None] - reference[:, None, :])
    return np.where(differs, distance, 0.0).max(axis=2).mean(axis=1)


def outcome_table(imagined_PU: NDArray[Any], reference_PU: NDArray[Any]) -> dict[str, dict[str, int]]:
    """Trials by outcome imagined (rows) and in the reference (columns); what neither world judged is left out."""
    sides = [_outcome(imagined_PU).ravel(), _outcome(reference_PU).ravel()]
    table = {
        row: {column: int(((sides[0] == i) & (sides[1] == j)).sum()) for j, column in enumerate(OUTCOMES)}
        for i, row in enumerate(OUTCOMES)
    }
    table["unscored"]["unscored"] = 0
    return table


def cohens_kappa(table: dict[str, dict[str, int]]) -> float | None:
    """Cohen's kappa (Educ. Psychol. Meas. 20, 1960) of the trials judged in both worlds; None where it is 0 / 0."""
    counts = np.array([[table[row][column] for column in OUTCOMES[:2]] for row in OUTCOMES[:2]], dtype=float)
    n = counts.sum()
    if not n:
        return None
    observed, expected = np.trace(counts) / n, (counts.sum(axis=0) @ counts.sum(axis=1)) / n**2
    return None if expected == 1 else float((observed - expected) / (1 - expected))


class _Rates:
    """Rates of policies, or of policy x group cells, in two worlds: observed and in resamples of the starts."""

    def __init__(
        self,
        worlds: Sequence[NDArray[Any]],
        both_PU: NDArray[Any],
        clusters_U: NDArray[Any],
        groups_U: NDArray[Any],
        strata_U: NDArray[Any],
        seed: int,
    ) -> None:
        groups, clusters = int(groups_U.max()) + 1, int(clusters_U.max()) + 1
        shape = (len(both_PU), groups, clusters)
        place = (np.arange(len(both_PU))[:, None], groups_U[None], clusters_U[None])

        def summed(values_PU: NDArray[Any]) -> NDArray[Any]:
            sums = np.zeros(shape)
            np.add.at(sums, np.broadcast_arrays(*place), values_PU)
            return sums.reshape(-1, clusters)

        counts_MC = summed(both_PU.astype(float))
        sums = [summed(world) for world in worlds]
        strata_C = np.zeros(clusters, dtype=int)
        strata_C[clusters_U] = strata_U
        self.alone_PG = ((counts_MC > 0).sum(axis=1) == 1).reshape(len(both_PU), groups)
        """Whether a rate rests on one start alone, which every resample would repeat."""
        with np.errstate(invalid="ignore"):
            self.imagined_M, self.reference_M = (side.sum(axis=1) / counts_MC.sum(axis=1) for side in sums)
        # One seed: the same starts are drawn in both worlds.
        self.imagined_RM, self.reference_RM = (
            resampled_means(side, counts_MC, merged_strata(strata_C), seed=seed, resamples=RESAMPLES // 5)
            for side in sums
        )

    def correlation(self, *, spearman: bool, independent: bool) -> Correlation:
        rows = (self.imagined_M[None], self.reference_M[None])
        value = float(correlations(*rows, spearman=spearman)[0])
        n = int((~np.isnan(self.imagined_M)).sum())
        if math.isnan(value):
            return Correlation(None, None, None, n)
        over_trials: Interval | None = None
        if not self.alone_PG.any():
            samples = correlations(self.imagined_RM, self.reference_RM, spearman=spearman)
            over_trials = biased_interval(value, samples, (-1.0, 1.0))
        over_policies = fisher_interval(value, n, spearman=spearman) if independent else None
        return Correlation(value, over_policies, over_trials, n)

    def rank_violation(self) -> float:
        return mean_maximum_rank_violation(self.imagined_M, self.reference_M)

    def rank_violation_interval(self, largest: float) -> Interval | None:
        if self.alone_PG.any():
            return None
        samples = mean_maximum_rank_violations(self.imagined_RM, self.reference_RM)
        return biased_interval(self.rank_violation(), samples, (0.0, largest))


def _mean_difference(
    differences_PU: NDArray[Any], both_PU: NDArray[Any], clusters_U: NDArray[Any], seed: int
) -> Estimate:
    differences, clusters = differences_PU[both_PU], np.tile(clusters_U, (len(both_PU), 1))[both_PU]
    interval = bootstrap_interval(differences, clusters, bounds=(-1.0, 1.0), seed=seed)
    return Estimate(float(differences.mean()), interval)


def _outcome(scores: NDArray[Any]) -> NDArray[Any]:
    """Index into OUTCOMES."""
    return np.where(np.isnan(scores), 2, np.where(scores > SUCCESS_ABOVE, 0, 1))


def _same_outcome(table: dict[str, dict[str, int]]) -> float | None:
    judged = [(row, column, table[row][column]) for row in OUTCOMES[:2] for column in OUTCOMES[:2]]
    n = sum(count for *_, count in judged)
    return sum(count for row, column, count in judged if row == column) / n if n else None


def _rows(rates_M: NDArray[Any], policies: int) -> tuple[tuple[float | None, ...], ...]:
    return tuple(
        tuple(None if math.isnan(rate) else float(rate) for rate in row) for row in rates_M.reshape(policies, -1)
    )
