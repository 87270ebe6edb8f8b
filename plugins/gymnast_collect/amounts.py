"""Numbers that are given, or drawn for each episode from a range."""

from __future__ import annotations

from typing import Any

import torch

from gymnast_core.config.ranges import Range
from gymnast_core.errors import ConfigError


def check_amount(key: str, amount: Any, allowed: Range) -> None:
    """Raises `ConfigError` for what is neither a number in the range, nor two such in order."""
    ends = list(amount) if isinstance(amount, list | tuple) else [amount]
    numbers = all(isinstance(end, int | float) and not isinstance(end, bool) for end in ends)
    if not numbers or not all(allowed.holds(end) for end in ends):
        raise ConfigError(f"{key} is {amount!r}; give a number, {allowed}, or [least, most] of such.")
    if isinstance(amount, list | tuple) and (len(ends) != 2 or ends[0] > ends[1]):
        raise ConfigError(f"{key} is {amount!r}; a range has two ends, the smaller one first: [0.1, 0.4].")


def drawn(amount: Any, generator: torch.Generator) -> float:
    """The number, or one from the range, uniformly. Takes one number of the generator in any case."""
    share = float(torch.rand((), dtype=torch.float64, generator=generator))
    if not isinstance(amount, list | tuple):
        return float(amount)
    least, most = float(amount[0]), float(amount[1])
    return least + (most - least) * share
