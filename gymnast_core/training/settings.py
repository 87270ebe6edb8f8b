"""What a gradient optimizer was told (weight decay, betas, ...), apart from what it has learned.

torch restores both from a snapshot. A resumed run is told anew, and what changed has to take effect; what an optimizer
keeps beside it in its parameter groups (a counter, an estimate) must stay as the snapshot has it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

_SET_BY_US = ("params", "lr")
"""The parameters, and the learning rate, which every step sets."""


def settings_of(optimizer: torch.optim.Optimizer) -> list[dict[str, Any]]:
    """The plain values in each group of parameters; ask before the first step, and before anything is restored."""
    return [
        {key: _plain(value) for key, value in group.items() if key not in _SET_BY_US and _is_plain(value)}
        for group in optimizer.param_groups
    ]


def apply_changes(
    optimizer: torch.optim.Optimizer, told: Sequence[Mapping[str, Any]], before: Sequence[Mapping[str, Any]]
) -> None:
    """After its state was restored: what this process was told (`told`), and the one that wrote the snapshot was not
    (`before`), takes effect."""
    for group, now, then in zip(optimizer.param_groups, told, before, strict=True):
        for key, value in now.items():
            if key not in then or then[key] != value:
                group[key] = value


def _is_plain(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(_is_plain(item) for item in value)
    return value is None or isinstance(value, bool | int | float | str)


def _plain(value: Any) -> Any:
    """As a snapshot gives it back: tuples are lists then."""
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value
