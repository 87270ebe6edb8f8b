"""How numbers read on a page."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime


def percent(value: float | None) -> str:
    """0.325 -> "32.5 %"; None -> "unscored"."""
    return "unscored" if value is None else f"{100 * value:.1f} %"


def points(value: float, unit: str = " points") -> str:
    """0.12 -> "+12.0 points" (percentage points)."""
    return f"{100 * value:+.1f}{unit}".replace("-", "−")


def number(value: float, sign: str = "") -> str:
    """-1.23456 -> "−1.235"; with sign "+", 0.12 -> "+0.12"."""
    return f"{value:{sign}.4g}".replace("-", "−")


def interval(bounds: Sequence[float] | None) -> str:
    """(0.1, 0.25) -> "10.0 % to 25.0 %"."""
    return "" if bounds is None else f"{100 * bounds[0]:.1f} % to {100 * bounds[1]:.1f} %".replace("-", "−")


def verdict(value: float | None) -> str:
    """A score in words: "unscored", "success", "failure", or "partial 32.5 %" for what lies between."""
    if value is None:
        return "unscored"
    return {0.0: "failure", 1.0: "success"}.get(value, f"partial {percent(value)}")


def counted(count: int, what: str) -> str:
    """(1, "trial") -> "1 trial"; (4, "trial") -> "4 trials"."""
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def duration(seconds: float) -> str:
    """3725 -> "1 h 2 min"."""
    minutes, rest = divmod(round(seconds), 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def moment(seconds: float) -> str:
    """Seconds since 1970 -> "2026-01-31 13:05:09 UTC"."""
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S} UTC"


def p_value(value: float | None) -> str:
    """0.0412 -> "0.041"; 0.00002 -> "< 0.001"."""
    if value is None:
        return "–"
    return "< 0.001" if value < 0.001 else f"{value:.3f}"
