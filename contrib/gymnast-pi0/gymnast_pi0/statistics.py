"""Between robot units and what PI0 was trained on: statistics of its data, from a file."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from gymnast_core.errors import CheckpointError, ConfigError, DataError, unknown_name
from gymnast_core.reading import read_object
from torch import Tensor

FILE = "norm_stats.json"
"""Name that openpi gives to it, and under which `save` writes it."""
PROCESSOR_FILE = "processor_config.json"
"""Where transformers' PI0Processor keeps means and standard deviations."""
KINDS = {"mean_std": ("mean", "std"), "quantiles": ("q01", "q99")}
ALIASES = {"actions": ("actions", "action"), "state": ("state", "observation.state")}
EPSILON = 1e-6
"""Added to standard deviations and ranges, as openpi does."""


@dataclass(frozen=True)
class Units:
    """A linear map: normalised = (value - shift) / scale, float64, one number a dimension."""

    what: str
    shift: Tensor
    scale: Tensor

    @property
    def width(self) -> int:
        return len(self.shift)

    def normalise(self, values: Tensor) -> Tensor:
        """Robot units (..., width) to the model's, float64. Raises `DataError` for another width."""
        if values.shape[-1] != self.width:
            raise DataError(f"The {self.what} has {values.shape[-1]} dimensions, the policy's statistics {self.width}.")
        return (values.double() - self.shift.to(values.device)) / self.scale.to(values.device)

    def restore(self, values: Tensor) -> Tensor:
        """The model's units (..., width) to robot units, float64."""
        return values.double() * self.scale.to(values.device) + self.shift.to(values.device)


def read_statistics(directory: Path, file: str | None) -> dict[str, dict[str, list[float]]]:
    """{"actions": {"mean": [...], ...}, "state": {...}}; "state" may lack.

    `file` is openpi's norm_stats.json or LeRobot's meta/stats.json; None takes what lies in the checkpoint's directory.
    Raises `CheckpointError` when there is none or when it cannot be read.
    """
    if file is not None:
        return _parse(Path(file).expanduser())
    if (directory / FILE).is_file():
        return _parse(directory / FILE)
    if (directory / PROCESSOR_FILE).is_file():
        held = _load(directory / PROCESSOR_FILE)
        kept = {
            name: {kind: held[f"{name}_{kind}"] for kind in ("mean", "std") if held.get(f"{name}_{kind}") is not None}
            for name in ALIASES
        }
        if kept["actions"]:
            return {name: statistics for name, statistics in kept.items() if statistics}
    raise CheckpointError(
        f"{directory} has no {FILE} (nor means in {PROCESSOR_FILE}), which says in what units the policy acts. Set "
        f"policy.args.statistics to openpi's assets/ROBOT/{FILE} or to a LeRobot dataset's meta/stats.json."
    )


def units(
    what: str, statistics: Mapping[str, list[float]], kind: str, *, width: int | None = None, limit: int
) -> Units:
    """The map of `kind` ("mean_std", openpi's for PI0, or "quantiles": q01 and q99 become -1 and 1).

    The first `width` dimensions are used; None: all of them. The model has `limit` of them.
    """
    if kind not in KINDS:
        raise ConfigError(unknown_name("normalisation", kind, KINDS))
    names = KINDS[kind]
    missing = [name for name in names if name not in statistics]
    if missing:
        raise CheckpointError(
            f"The {what} statistics lack {', '.join(missing)}; they hold {', '.join(statistics) or 'nothing'}. "
            f"Choose the other kind with policy.args.normalisation={'|'.join(KINDS)}."
        )
    try:
        first, second = (torch.tensor(statistics[name], dtype=torch.float64) for name in names)
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"The {what} statistics {' and '.join(names)} are no lists of numbers.") from error
    if first.ndim != 1 or first.shape != second.shape or not bool(torch.isfinite(first + second).all()):
        raise CheckpointError(f"The {what} statistics {' and '.join(names)} are no finite lists of one length.")
    used = len(first) if width is None else width
    if not 1 <= used <= min(len(first), limit):
        raise ConfigError(
            f"The {what} has {used} dimensions, but its statistics have {len(first)} and the model {limit}: "
            "set action_dim or state_dim among policy.args to what the robot has."
        )
    first, second = first[:used], second[:used]
    if kind == "mean_std":
        return Units(what, first, second + EPSILON)
    half = (second - first + EPSILON) / 2
    return Units(what, first + half, half)


def state_width(statistics: Mapping[str, list[float]], kind: str) -> int:
    """Readings of the state that statistics are of, as `units` finds them."""
    return units("proprioception", statistics, kind, limit=sys.maxsize).width


def _parse(path: Path) -> dict[str, dict[str, list[float]]]:
    held = _load(path)
    held = held.get("norm_stats", held)
    found = {name: next((held[a] for a in aliases if a in held), None) for name, aliases in ALIASES.items()}
    if not isinstance(found["actions"], dict):
        raise CheckpointError(
            f"{path} has no statistics of actions; it holds {', '.join(map(str, held)) or 'nothing'}."
        )
    return {name: statistics for name, statistics in found.items() if isinstance(statistics, dict)}


def _load(path: Path) -> dict[str, Any]:
    try:
        return read_object(path, CheckpointError).values
    except CheckpointError as error:
        raise CheckpointError(f"{error} Statistics are read as openpi writes them.") from error
