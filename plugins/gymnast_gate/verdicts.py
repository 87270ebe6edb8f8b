"""From a number with its interval and a wanted bound to a verdict, without guessing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gymnast_core.statistics import Interval, bootstrap_interval, is_binary, wilson_interval

PASS, FAIL, UNCLEAR, NOT_MEASURED = "pass", "fail", "unclear", "not measured"
VERDICTS = (FAIL, UNCLEAR, NOT_MEASURED, PASS)
"""The worst first: a gate's verdict is that of its worst criterion."""


@dataclass(frozen=True)
class Criterion:
    """One number that a gate looks at, and what is wanted of it."""

    name: str
    value: float | None
    interval: Interval | None
    n: int
    bound: float
    """The value that is wanted at least, or at most."""
    least: bool
    """Whether `bound` is a lower one."""
    unit: str
    """"share", "points" (a difference of shares) or "dB"."""
    verdict: str
    by_estimate: bool = False
    """The interval holds the bound, and there are enough cases for the estimate to decide."""
    needed: int | None = None
    """Where the verdict is open: about how many cases would decide."""


def criterion(
    name: str,
    value: float | None,
    interval: Interval | None,
    n: int,
    bound: float,
    *,
    unit: str,
    least_n: int,
    enough: int,
    at_least: bool = True,
) -> Criterion:
    """What to say of a value.

    pass or fail: the 95 % interval lies on one side of the bound; or it does not, and there are `enough` cases, so that
    the estimate decides. unclear: it does not, and more cases may decide: as many as would shrink this interval (with
    the root of their number) to the distance of this value from the bound, but `enough` at most. not measured: fewer
    than `least_n` cases.
    """
    given: dict[str, Any] = {"n": n, "bound": bound, "least": at_least, "unit": unit}
    if value is None or interval is None or n < least_n:
        return Criterion(name, value, interval, verdict=NOT_MEASURED, needed=least_n, **given)
    sign = 1.0 if at_least else -1.0
    margin, low, high = sign * (value - bound), *sorted(sign * (end - bound) for end in interval)
    if low >= 0 or high < 0:
        return Criterion(name, value, interval, verdict=PASS if low >= 0 else FAIL, **given)
    if n >= enough:
        return Criterion(name, value, interval, verdict=PASS if margin >= 0 else FAIL, by_estimate=True, **given)
    reach = margin - low if margin >= 0 else high - margin
    needed = enough if margin == 0 else min(enough, math.ceil(n * (reach / margin) ** 2 - 1e-6))
    return Criterion(name, value, interval, verdict=UNCLEAR, needed=max(needed, n + 1), **given)


def worst(verdicts: Sequence[str]) -> str:
    """The verdict on several; "not measured" on none."""
    return min(verdicts, key=VERDICTS.index, default=NOT_MEASURED)


def share_interval(values: Sequence[bool], starts: Sequence[str]) -> Interval | None:
    """Interval of a share: Wilson's; where starts are repeated, by resampling starts."""
    return mean_interval([float(value) for value in values], starts, bounds=(0.0, 1.0))


def mean_interval(values: Sequence[float], starts: Sequence[str], *, bounds: Interval) -> Interval | None:
    """95 % interval of the mean of values whose rollouts began at `starts`; None without any.

    Wilson's for 0 and 1 of as many starts, else a bootstrap (BCa) over starts.
    """
    if not values:
        return None
    if is_binary(values) and len(set(starts)) == len(values) and bounds == (0.0, 1.0):
        return wilson_interval(int(np.sum(values)), len(values))
    return bootstrap_interval(values, starts, bounds=bounds)
