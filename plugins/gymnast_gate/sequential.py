"""Tests that may be looked at after every audit of a training, and still raise a false alarm as seldom as stated.

A p-value that is looked at again and again falls below any level at some time. Here evidence is the wealth of a gambler
who bets against the hypothesis that the mean of values in [0, 1] is at most `bound`, at odds that are fair under it: a
value x multiplies the stake by 1 + λ (x - bound), 0 < λ < 1 / bound (I. Waudby-Smith and A. Ramdas, J. R. Stat. Soc. B
86, 2024, sec. 4). Under the hypothesis the wealth is a non-negative supermartingale that begins with 1, so that the
probability that it *ever* reaches 1 / α is at most α (J. Ville, 1939), however many audits there are and whenever one
stops. Nothing is assumed of the values' distribution, nor that it stays the same: the hypothesis is that the mean is
within the bound at every audit, given all audits before.

A policy parts from the truth at some time, for which the audits before would only be ballast: the stake is spread over
the audits at which that may have begun, 1 / (s (s + 1)) of it for the s-th, and over twenty λ. A mixture of such
wealths is one, too.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

_BETS = (np.arange(20) + 0.5) / 20
"""Shares of the largest stake, 1 / bound."""
_LARGEST = 700.0
"""Logarithm beyond which a float overflows."""

Audits = Sequence[Sequence[float]]
"""The values of each audit, in order."""


def evidence(audits: Audits, bound: float) -> float:
    """The gambler's wealth against "at every audit the mean of the values is at most `bound`", which is in (0, 1).

    Values lie in [0, 1]; those of one audit must be independent, given the audits before.
    """
    steps_AG = [np.log1p(_BETS[:, None] / bound * (np.asarray(values, float) - bound)).sum(1) for values in audits]
    wealth, since_G = 1.0, np.zeros(len(_BETS))
    for start in range(len(steps_AG), 0, -1):
        since_G = since_G + steps_AG[start - 1]
        wealth += (float(np.exp(np.minimum(since_G, _LARGEST)).mean()) - 1.0) / (start * (start + 1))
    return wealth


def upper_bound(values: Sequence[float], error: float) -> float:
    """A number that the mean of independent values in [0, 1] exceeds with probability `error` at most; 1 without any.

    It is the smallest mean against which one audit has enough evidence that the true one is lower.
    """
    low, high = (float(np.mean(values)), 1.0) if len(values) else (1.0, 1.0)
    mirrored = [[1.0 - value for value in values]]
    while high - low > 1e-4:
        middle = (low + high) / 2
        refuted = 1.0 - middle > 0 and evidence(mirrored, 1.0 - middle) * 2.0 - 1.0 >= 1.0 / error
        low, high = (low, middle) if refuted else (middle, high)
    return high


def lower_bound(values: Sequence[float], error: float) -> float:
    """The same from below."""
    return 1.0 - upper_bound([1.0 - value for value in values], error)
