"""What the benchmarks of the paper's claims have in common: paired tests, power before a run, what a result says.

All differences are of success rates in [0, 1], one for each unit (a seed, or a scene) that is taken as independent of
the others; positive means that the claim is right.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import stats

from gymnast_core.statistics import holm

__all__ = ["ALPHA", "POWER", "SMALLEST", "holm", "judgement", "needed", "paired", "power_of", "settle"]

ALPHA = 0.01
"""Two-sided level, after the correction for the number of claims on a page."""
POWER = 0.9
SMALLEST = 0.05
"""Smallest effect of interest, a difference of success rates: 5 points."""
MOST = 1_000_000
"""Units after which `needed` gives up."""


def paired(differences: Sequence[float]) -> dict[str, Any]:
    """Student's t test of "the mean difference is 0": mean, standard_error, interval (95 %) and p (two-sided).

    With one unit, or where all differences are equal, nothing is known of their spread: interval is None and p is 1.
    Raises `ValueError` without differences.
    """
    if not len(differences):
        raise ValueError("There are no differences to test.")
    values = np.asarray(differences, dtype=float)
    mean = float(values.mean())
    if len(values) < 2 or np.ptp(values) < 1e-12:
        error = None if len(values) < 2 else 0.0
        return {"mean": mean, "standard_error": error, "interval": None, "p": 1.0}
    result = stats.ttest_1samp(values, 0.0)
    interval = result.confidence_interval(0.95)
    return {
        "mean": mean,
        "standard_error": float(values.std(ddof=1) / math.sqrt(len(values))),
        "interval": [float(interval.low), float(interval.high)],
        "p": float(result.pvalue),
    }


def power_of(n: int, standard_deviation: float, effect: float, alpha: float = ALPHA) -> float:
    """Chance that `paired` over n units gives p < alpha, if the differences are normal with that mean and deviation.

    `effect` is the true mean. Exact, by the noncentral t distribution; both sides count.
    """
    if n < 2:
        return 0.0
    if standard_deviation <= 0:
        return 1.0
    critical = stats.t.ppf(1 - alpha / 2, n - 1)
    shift = abs(effect) / standard_deviation * math.sqrt(n)
    power = stats.nct.sf(critical, n - 1, shift) + stats.nct.cdf(-critical, n - 1, shift)
    if math.isfinite(power):
        return float(power)
    return float(stats.norm.sf(critical - shift))  # scipy's nct has no value for some large shifts


def needed(standard_deviation: float, effect: float, power: float = POWER, alpha: float = ALPHA) -> int:
    """Fewest units with which `paired` finds an effect of that size (a true mean difference) with that power.

    For a page of several claims, give alpha divided by their number (Holm's first step, the strictest). Raises
    `ValueError` for an effect of 0, and for one that a million units would not find.
    """
    if effect == 0:
        raise ValueError("No number of units finds an effect of 0.")
    low, high = 1, 2
    while power_of(high, standard_deviation, effect, alpha) < power:
        low, high = high, 2 * high
        if high > MOST:
            raise ValueError(f"More than {MOST:,} units would be needed for {effect:g} at {standard_deviation:g}.")
    while high - low > 1:  # power grows with n
        middle = (low + high) // 2
        if power_of(middle, standard_deviation, effect, alpha) < power:
            low = middle
        else:
            high = middle
    return high


def judgement(
    mean: float, interval: Sequence[float] | None, p: float, *, smallest: float = SMALLEST, alpha: float = ALPHA
) -> str:
    """What a result says of its claim. `p` is corrected for the number of claims, `interval` is not.

    - "shows here": p < alpha and the mean is above 0 (also where the effect is smaller than `smallest`).
    - "the contrary shows here": p < alpha and the mean is below 0.
    - "does not": neither, and the whole 95 % interval lies below `smallest`, so that an effect as large as that,
      which the pilot said the run could find, is excluded.
    - "not resolved": all else, one unit included; an effect that matters may be there or not.
    """
    if p < alpha:
        return "shows here" if mean > 0 else "the contrary shows here"
    if interval is not None and interval[1] < smallest:
        return "does not"
    return "not resolved"


def settle(
    claims: Mapping[str, Sequence[float]], *, smallest: float = SMALLEST, alpha: float = ALPHA
) -> dict[str, dict[str, Any]]:
    """All claims of a page: claim -> its differences by unit; `paired`, `corrected` p (Holm) and `verdict` of each."""
    found = {claim: {"differences": [float(d) for d in values], **paired(values)} for claim, values in claims.items()}
    corrected = holm([row["p"] for row in found.values()])
    for row, p in zip(found.values(), corrected, strict=True):
        row["corrected"] = float(p)
        row["verdict"] = judgement(row["mean"], row["interval"], p, smallest=smallest, alpha=alpha)
    return found
