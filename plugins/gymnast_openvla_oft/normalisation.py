"""Between robot units and [-1, 1], with the statistics that a checkpoint keeps of its training data."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from gymnast_core.config.ranges import Range
from gymnast_core.errors import CheckpointError, ConfigError, DataError, unknown_name
from gymnast_core.reading import JsonObject, as_object

BOUNDS = {"q99": ("q01", "q99"), "minmax": ("min", "max")}
"""Statistics that become -1 and 1: quantiles (Bridge, LIBERO) or extremes (ALOHA)."""
OFT_EPSILON = 1e-8
"""What OpenVLA-OFT adds to a range, so that a constant dimension does not divide by zero. Plain OpenVLA adds none."""


LARGEST = Range(least=-1e6, most=1e6)
"""Robot units: metres, radians, pixels at most."""
ORDER = ("min", "q01", "q99", "max")
ROUNDING = 1e-4
"""Share of a range by which statistics that were computed in different precisions may be out of order."""
SLACK = 0.01
"""Share of a range by which a value may miss it and still count as inside."""


class Normaliser:
    """The linear map between robot units and [-1, 1], a dimension at a time, in float64 as in the reference.

    `what` names the quantity, and `where` the statistics, in errors. Dimensions outside the statistics' mask (grippers)
    pass through. Raises `CheckpointError` for statistics that cannot be right.
    """

    def __init__(
        self,
        what: str,
        statistics: Mapping[str, Any],
        *,
        bounds: str,
        epsilon: float = OFT_EPSILON,
        where: str = "norm_stats",
    ) -> None:
        held = as_object(statistics, f"{where}: {what}", CheckpointError)
        check_statistics(held)
        self.what = what
        self.epsilon = epsilon
        low, high = _bounds(what, held, bounds)
        self.low = torch.tensor(low, dtype=torch.float64)
        self.high = torch.tensor(high, dtype=torch.float64)
        self.mask = torch.tensor(held.flags("mask", default=[True] * len(low)), dtype=torch.bool)

    @property
    def width(self) -> int:
        return len(self.low)

    def normalise(self, values: Tensor) -> Tensor:
        """Robot units (..., width) to [-1, 1], float64, clipped. Raises `DataError` for another width."""
        self._check_width(values)
        low, high, mask = self._on(values.device)
        x = values.double()
        span = high - low + self.epsilon
        # A dimension without any range says nothing, and must not divide by zero.
        scaled = torch.where(span == 0, 0.0, 2.0 * (x - low) / torch.where(span == 0, 1.0, span) - 1.0)
        return torch.where(mask, scaled, x).clamp(-1.0, 1.0)

    def outside(self, values: Tensor) -> Tensor:
        """Which robot units (..., width) `normalise` clips, bool; those that miss the range by rounding, or by less
        than a hundredth of it, are not counted. Raises `DataError` for another width."""
        self._check_width(values)
        low, high = (bound.to(values.device) for bound in self.limits())
        slack = SLACK * (high - low) + ROUNDING * torch.maximum(low.abs(), high.abs())
        x = values.double()
        return (x < low - slack) | (x > high + slack)

    def limits(self) -> tuple[Tensor, Tensor]:
        """What becomes -1 and 1, float64 (width,), robot units."""
        return torch.where(self.mask, self.low, -1.0), torch.where(self.mask, self.high, 1.0)

    def _check_width(self, values: Tensor) -> None:
        if values.shape[-1] != self.width:
            raise DataError(f"The {self.what} has {values.shape[-1]} dimensions, the policy's statistics {self.width}.")

    def unnormalise(self, values: Tensor) -> Tensor:
        """[-1, 1] to robot units, float64 (..., width)."""
        low, high, mask = self._on(values.device)
        x = values.double()
        return torch.where(mask, 0.5 * (x + 1.0) * (high - low + self.epsilon) + low, x)

    def _on(self, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
        return self.low.to(device), self.high.to(device), self.mask.to(device)


def choose_statistics(norm_stats: Any, key: str | None, where: str = "norm_stats") -> tuple[str, dict[str, Any]]:
    """The statistics (of actions, perhaps of proprioception) of dataset `key`, or of the only dataset there is.

    `where` names the file in errors. Raises `ConfigError` that lists the datasets when `key` is unknown or missing
    among several, and `CheckpointError` for statistics that cannot be right.
    """
    held = as_object(norm_stats, where, CheckpointError)
    if key is None:
        if len(held.values) != 1:
            raise ConfigError(
                f"The checkpoint holds action statistics of {len(held.values)} datasets; choose one with "
                f"unnorm_key: {', '.join(sorted(held.values)) or 'none'}."
            )
        key = next(iter(held.values))
    if key not in held:
        raise ConfigError(unknown_name("action statistics (unnorm_key)", key, held.values))
    chosen = held.object(key)
    if "action" not in chosen:
        raise CheckpointError(f"{where}: the statistics of {key!r} hold no 'action' entry.")
    check_statistics(chosen.object("action"))
    if readings := chosen.object("proprio", default=None):
        check_statistics(readings)
    return key, chosen.values


def action_width(chosen: Mapping[str, Any], bounds: str, where: str = "norm_stats") -> int:
    """Numbers of an action that a dataset's statistics know of."""
    return len(_bounds("action", as_object(chosen, where, CheckpointError).object("action"), bounds)[0])


def count_readings(chosen: Mapping[str, Any], bounds: str, where: str = "norm_stats") -> int:
    """Proprioceptive readings that a dataset's statistics know of, 0 without."""
    statistics = as_object(chosen, where, CheckpointError).object("proprio", default=None)
    return 0 if statistics is None else len(_bounds("proprioception", statistics, bounds)[0])


def check_statistics(statistics: JsonObject) -> None:
    """Raise `CheckpointError` unless all lists have one length, and their numbers the order that statistics have."""
    names = [name for name in (*ORDER, "mean", "std") if name in statistics]
    found = {name: statistics.numbers(name, LARGEST) for name in names}
    lengths = {name: len(numbers) for name, numbers in found.items()}
    if "mask" in statistics:
        lengths["mask"] = len(statistics.flags("mask"))
    if 0 in lengths.values() or len(set(lengths.values())) > 1:
        said = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise CheckpointError(f"{statistics.place}: the lists must have one number a dimension each; they have {said}.")
    for lower, higher in pairwise(name for name in ORDER if name in found):
        _check_order(statistics, lower, higher)
    for lower, higher in (("min", "mean"), ("mean", "max")):
        if lower in found and higher in found:
            _check_order(statistics, lower, higher)
    if min(found.get("std", [0.0])) < 0:
        statistics.refuse("std", "has a negative number")


def _check_order(statistics: JsonObject, lower: str, higher: str) -> None:
    for i, (low, high) in enumerate(zip(statistics.numbers(lower), statistics.numbers(higher), strict=True)):
        if low - high > ROUNDING * max(abs(low), abs(high)):
            statistics.refuse(f"{lower}[{i}]", f"is {low:g}, above {higher}[{i}], which is {high:g}")


def _bounds(what: str, statistics: JsonObject, bounds: str) -> tuple[list[float], list[float]]:
    """What becomes -1 and 1."""
    if bounds not in BOUNDS:
        raise ConfigError(unknown_name("action_bounds", bounds, BOUNDS))
    missing = [name for name in BOUNDS[bounds] if name not in statistics]
    if missing:
        raise CheckpointError(
            f"{statistics.place}: the {what} statistics lack {', '.join(missing)}; they hold "
            f"{', '.join(statistics.values)}. Choose the other kind with action_bounds=q99|minmax."
        )
    low, high = (statistics.numbers(name, LARGEST) for name in BOUNDS[bounds])
    return low, high
