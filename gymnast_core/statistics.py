"""Intervals of means and tests of paired differences, over trials.

A trial is one judged rollout. Trials that start alike (the same task, rolled out several times) are a cluster: every
bootstrap here draws whole clusters, and sign flips flip whole ones, so that repeating a task makes no evidence about
other tasks. Wilson's interval and McNemar's test know no clusters: they are for trials of different starts, or of one
(`repeats`). All intervals hold 95 %; p-values are two-sided.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

CONFIDENCE = 0.95
RESAMPLES = 10_000
"""Bootstrap resamples and random sign flips."""

Interval = tuple[float, float]


@dataclass(frozen=True)
class McNemar:
    """Trials on which exactly one of two policies succeeded."""

    only_first: int
    only_second: int
    p_value: float


def wilson_interval(successes: int, n: int) -> Interval:
    """Wilson's score interval of a success rate (E. B. Wilson, JASA 22, 1927, eq. 4); (0, 1) without trials."""
    from scipy import stats

    if n == 0:
        return (0.0, 1.0)
    interval = stats.binomtest(successes, n).proportion_ci(CONFIDENCE, method="wilson")
    return (float(interval.low), float(interval.high))


def is_binary(values: ArrayLike) -> bool:
    """Whether all values are 0 or 1."""
    return bool(np.isin(values, (0.0, 1.0)).all())


def repeats(clusters: ArrayLike | None) -> bool:
    """Whether some of several clusters hold more than one trial: as many trials tell less of other starts than as many
    different ones. Trials of one start alone are of that start, and all its evidence; so are those without clusters."""
    names = np.asarray(() if clusters is None else clusters)
    return 1 < len(np.unique(names)) < len(names)


def success_interval(values: Sequence[float], clusters: ArrayLike | None = None, *, seed: int = 0) -> Interval:
    """Interval of the mean of values in [0, 1]: Wilson's if all are 0 or 1 and no cluster repeats, else a BCa bootstrap
    of clusters."""
    if not len(values):
        return (0.0, 1.0)
    if is_binary(values) and not repeats(clusters):
        return wilson_interval(round(sum(values)), len(values))
    return bootstrap_interval(values, clusters, bounds=(0.0, 1.0), seed=seed)


def bootstrap_interval(
    values: ArrayLike, clusters: ArrayLike | None = None, *, bounds: Interval, seed: int = 0
) -> Interval:
    """BCa bootstrap interval (Efron, JASA 82, 1987) of the mean of values within `bounds`, by clusters.

    `clusters` names each value's cluster; None, or one cluster for all, draws the values themselves. Where all clusters
    have the same mean, nothing is known of the spread of others, and a resample would claim certainty: the share of
    what was not seen is then bounded as in Wilson's interval, z² / (n + z²), and placed at either bound.
    """
    from scipy import stats

    sums, counts = _cluster_sums(np.asarray(values, dtype=float), clusters)
    means = sums / counts
    if np.ptp(means) < 1e-12:
        z2 = stats.norm.ppf(0.5 + CONFIDENCE / 2) ** 2
        unseen = z2 / (len(means) + z2)
        low, high = ((1 - unseen) * means[0] + unseen * bound for bound in bounds)
        return (float(low), float(high))
    result = stats.bootstrap(
        (sums, counts), _ratio, paired=True, vectorized=True, n_resamples=RESAMPLES, confidence_level=CONFIDENCE,
        method="BCa", rng=np.random.default_rng(seed), batch=1000,
    )  # fmt: skip
    return (float(result.confidence_interval.low), float(result.confidence_interval.high))


def score_interval(values: ArrayLike, clusters: ArrayLike | None = None, *, seed: int = 0) -> Interval | None:
    """`bootstrap_interval` of the mean of values without bounds; None where all clusters have the same mean, which says
    nothing of the spread of others."""
    sums, counts = _cluster_sums(np.asarray(values, dtype=float), clusters)
    if not len(sums) or np.ptp(sums / counts) < 1e-12:
        return None
    return bootstrap_interval(values, clusters, bounds=(-np.inf, np.inf), seed=seed)


def mean_interval(
    values: Sequence[float], kind: str, clusters: ArrayLike | None = None, *, seed: int = 0
) -> Interval | None:
    """95 % interval of the mean of what a reward model of that kind ("success" or "score") gave; `clusters` names the
    start of each value's rollout."""
    if kind == "success":
        return success_interval(values, clusters, seed=seed)
    return score_interval(values, clusters, seed=seed)


def mcnemar(first: ArrayLike, second: ArrayLike) -> McNemar:
    """Exact McNemar test (Psychometrika 12, 1947) of two policies' 0/1 outcomes on the same trials.

    Under the null hypothesis that they succeed equally often on every task, a trial that only one of them solves is
    either one's with probability 1/2: a binomial test of those trials. Of starts that are repeated, trials are not
    independent, and the p-value is far too small (`repeats`); `sign_flip_test` over starts is the test then.
    """
    from scipy import stats

    a, b = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
    only_first, only_second = int(((a == 1) & (b == 0)).sum()), int(((a == 0) & (b == 1)).sum())
    discordant = only_first + only_second
    p_value = float(stats.binomtest(only_first, discordant, 0.5).pvalue) if discordant else 1.0
    return McNemar(only_first, only_second, p_value)


def sign_flip_test(differences: ArrayLike, clusters: ArrayLike | None = None, *, seed: int = 0) -> float:
    """p-value of the paired permutation test (Fisher, 1935): is the mean of the differences 0?

    Swapping the two policies flips the sign of a trial's difference (of a cluster's sum); the p-value is the share of
    flips with as large a mean. All flips are counted where there are at most 10,000, else that many random ones.
    """
    from scipy import stats

    sums, _ = _cluster_sums(np.asarray(differences, dtype=float), clusters)
    moved = sums[np.abs(sums) > 1e-12]
    if len(moved) < 2:
        return 1.0  # both flips of one difference are as large
    result = stats.permutation_test(
        (moved,), np.sum, permutation_type="samples", vectorized=True, n_resamples=RESAMPLES, batch=1000,
        rng=np.random.default_rng(seed),
    )  # fmt: skip
    return float(result.pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values adjusted for testing all of them (Holm, Scand. J. Statist. 6, 1979): reject those below the level."""
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for rank, index in enumerate(np.argsort(p_values, kind="stable")):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def cluster_index(clusters: ArrayLike) -> NDArray[np.int64]:
    """Number of each trial's cluster, in the order of first appearance; every trial its own if all start alike."""
    _, first, index = np.unique(np.asarray(clusters), return_index=True, return_inverse=True)
    if len(first) == 1:
        return np.arange(len(index))
    return np.argsort(np.argsort(first))[index]


def resampled_means(
    sums_MC: NDArray[Any], counts_MC: NDArray[Any], strata_C: ArrayLike, *, seed: int, resamples: int = RESAMPLES
) -> NDArray[Any]:
    """M means in each bootstrap resample of C clusters, (resamples, M); the same clusters for all of them.

    Clusters are drawn with replacement within their stratum. A stratum of one cluster is therefore the same in every
    resample: its spread is unknown, not zero (`merged_strata`). A mean of which a resample holds no trial is NaN.
    """
    rng, strata = np.random.default_rng(seed), np.asarray(strata_C)
    groups = [np.flatnonzero(strata == stratum) for stratum in np.unique(strata)]
    means_RM = np.empty((resamples, len(sums_MC)))
    block = max(1, 4_000_000 // len(strata))  # draws held in memory at once
    for first in range(0, resamples, block):
        size = min(block, resamples - first)
        drawn_RC = np.zeros((size, len(strata)))
        for group in groups:
            drawn_RC[:, group] = rng.multinomial(len(group), np.full(len(group), 1 / len(group)), size=size)
        with np.errstate(invalid="ignore", divide="ignore"):
            means_RM[first : first + size] = (drawn_RC @ sums_MC.T) / (drawn_RC @ counts_MC.T)
    return means_RM


def merged_strata(strata_C: ArrayLike) -> NDArray[np.int64]:
    """Number of each cluster's stratum, all strata of a single cluster made one; no strata at all (zeros) if that
    leaves one of a single cluster, which could not vary (collapsed strata: W. G. Cochran, Sampling Techniques, 1977,
    sec. 5A.12; the interval is rather too wide)."""
    _, strata, sizes = np.unique(np.asarray(strata_C), return_inverse=True, return_counts=True)
    alone_C = sizes[strata] == 1
    if alone_C.sum() == 1:
        return np.zeros(len(strata), dtype=np.int64)
    return np.where(alone_C, -1, strata).astype(np.int64)


def percentiles(samples: NDArray[Any]) -> Interval:
    """The bounds that hold 95 % of the samples, NaN left out; (NaN, NaN) without any."""
    known = samples[~np.isnan(samples)]
    if not len(known):
        return (float("nan"), float("nan"))
    low, high = np.quantile(known, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return (float(low), float(high))


def biased_interval(value: float, samples: NDArray[Any], bounds: Interval) -> Interval:
    """Interval of a statistic that noise biases (a correlation, a rank violation), from its bootstrap samples.

    Resampling adds the sampling noise a second time, so the samples are biased against `value` as `value` is against
    the truth; the percentile interval may then lie on the wrong side of the truth. This one spans the percentile and
    the reflected (basic) interval: conservative, where either alone may hold the truth too seldom
    (benchmarks/interval_coverage.py).
    """
    low, high = percentiles(samples)
    if np.isnan(low):
        return (float("nan"), float("nan"))
    ends = (low, high, 2 * value - low, 2 * value - high)
    return (max(bounds[0], min(ends)), min(bounds[1], max(ends)))


def _ratio(sums: NDArray[Any], counts: NDArray[Any], axis: int = -1) -> Any:
    return sums.sum(axis=axis) / counts.sum(axis=axis)


def _cluster_sums(values: NDArray[Any], clusters: ArrayLike | None) -> tuple[NDArray[Any], NDArray[Any]]:
    if clusters is None:
        return values, np.ones(len(values))
    index = cluster_index(clusters)
    return np.bincount(index, weights=values), np.bincount(index).astype(float)
