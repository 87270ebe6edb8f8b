"""The order of policies by success, and how much of it another sample of tasks would have kept.

Shapes: P policies, U trials, C clusters of trials that start alike, R resamples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gymnast_core.statistics import RESAMPLES, cluster_index, percentiles, resampled_means


@dataclass(frozen=True)
class Ranking:
    """Policies from best to worst, and the bootstrap distribution of that order over tasks."""

    policies: tuple[str, ...]
    """Best first; equal rates in the order given."""
    rates: tuple[float, ...]
    n: int
    """Trials judged for every policy: only they are compared."""
    rank_probability: tuple[tuple[float, ...], ...]
    """[i][r]: share of resamples in which `policies[i]` has rank r (0 is best); ties share their ranks evenly."""
    kendall_tau: float
    """Mean over resamples of Kendall's tau-b between the resampled and the observed order."""
    kendall_tau_interval: tuple[float, float]
    same_order: float
    """Share of resamples with exactly the observed order (tau = 1)."""


def rank_policies(
    names: Sequence[str], values_PU: NDArray[Any], clusters_U: NDArray[Any], *, seed: int = 0
) -> Ranking | None:
    """Rank policies on the trials judged for all of them (NaN is unjudged); None for one policy or without such trials.

    The bootstrap draws whole clusters, the same ones for every policy, since all were rolled out on the same tasks.
    """
    judged_U = ~np.isnan(values_PU).any(axis=0)
    if len(names) < 2 or not judged_U.any():
        return None
    values_PU, clusters_U = values_PU[:, judged_U], clusters_U[judged_U]
    rates_P = values_PU.mean(axis=1)
    order = np.argsort(-rates_P, kind="stable")
    rates_RP = resampled_rates(values_PU, clusters_U, seed=seed)[:, order]
    taus_R = kendall_taus(rates_P[order], rates_RP)
    taus_R = taus_R[~np.isnan(taus_R)]
    return Ranking(
        policies=tuple(names[int(index)] for index in order),
        rates=tuple(map(float, rates_P[order])),
        n=int(judged_U.sum()),
        rank_probability=tuple(tuple(map(float, row)) for row in rank_probabilities(rates_RP)),
        kendall_tau=float(taus_R.mean()) if len(taus_R) else float("nan"),
        kendall_tau_interval=percentiles(taus_R),
        same_order=float((taus_R > 1 - 1e-9).mean()) if len(taus_R) else float("nan"),
    )


def resampled_rates(
    values_PU: NDArray[Any], clusters_U: NDArray[Any], *, seed: int, resamples: int = RESAMPLES
) -> NDArray[Any]:
    """Mean of each policy in each bootstrap resample of the clusters, (R, P)."""
    index_U = cluster_index(clusters_U)
    sums_PC = np.stack([np.bincount(index_U, weights=values_U) for values_U in values_PU])
    counts_PC = np.tile(np.bincount(index_U), (len(values_PU), 1))
    return resampled_means(sums_PC, counts_PC, np.zeros(sums_PC.shape[1]), seed=seed, resamples=resamples)


def rank_probabilities(rates_RP: NDArray[Any]) -> NDArray[Any]:
    """(P, P): share of the R orders in which policy p has rank r; t tied policies have each of their ranks by 1/t."""
    resamples, policies = rates_RP.shape
    better_RP = _compared(rates_RP, rates_RP, np.greater).sum(axis=2)
    tied_RP = _compared(rates_RP, rates_RP, np.equal).sum(axis=2)
    ranks = np.arange(policies)
    held_RPr = (ranks >= better_RP[..., None]) & (ranks < (better_RP + tied_RP)[..., None])
    return (held_RPr / tied_RP[..., None]).sum(axis=0) / resamples


def kendall_taus(rates_P: NDArray[Any], rates_RP: NDArray[Any]) -> NDArray[Any]:
    """Kendall's tau-b (Biometrika 33, 1945) of each row with `rates_P`; NaN where either has no order at all."""
    upper = np.triu_indices(len(rates_P), 1)
    signs = np.sign(np.round(rates_P[upper[0]] - rates_P[upper[1]], 12))
    signs_R = np.sign(np.round(rates_RP[:, upper[0]] - rates_RP[:, upper[1]], 12))
    scale_R = np.sqrt(np.abs(signs).sum() * np.abs(signs_R).sum(axis=1))
    with np.errstate(invalid="ignore", divide="ignore"):
        return (signs_R @ signs) / scale_R


def _compared(left_RP: NDArray[Any], right_RP: NDArray[Any], how: Any) -> NDArray[Any]:
    """[r, p, q]: how policy q compares with policy p, equal up to rounding."""
    left, right = np.round(left_RP, 12), np.round(right_RP, 12)
    return how(right[:, None, :], left[:, :, None])
