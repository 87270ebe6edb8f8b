"""Costs in USD that may be unknown: None says so, and what it is added to is unknown, too."""

import math
from collections.abc import Iterable


def total_usd(costs: Iterable[float | None]) -> float | None:
    """The sum; None if one of them is unknown."""
    known = list(costs)
    return None if None in known else math.fsum(cost for cost in known if cost is not None)


def in_dollars(usd: float | None) -> str:
    """0.1234 -> "$0.12", 0.0012 -> "$0.0012", None -> "an unknown amount"."""
    if usd is None:
        return "an unknown amount"
    return f"${usd:.2f}" if usd >= 0.01 or usd == 0 else f"${usd:.2g}"


def as_metric(usd: float | None) -> float:
    """The same as a number of a step: NaN where it is unknown."""
    return math.nan if usd is None else usd
