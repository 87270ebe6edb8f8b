"""Numbers of many parts, steps and processes, combined as what they are: means by weight, sums, extremes."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from gymnast_core.processes import Processes
from gymnast_core.types import Metric

_EXTREMES = {"max": max, "min": min}


class Tally:
    """Collects metrics; tensors stay where they are until the numbers are asked for."""

    def __init__(self) -> None:
        self._found: dict[str, list[Metric]] = {}

    def add(self, metrics: Mapping[str, Metric]) -> None:
        for name, metric in metrics.items():
            self._found.setdefault(name, []).append(metric)

    def total(self, **sums: float) -> None:
        """Add to sums."""
        self.add({name: Metric(value, combine="sum") for name, value in sums.items()})

    def combined(self, processes: Processes | None = None) -> dict[str, Metric]:
        """One metric a name, of this process or of all of them."""
        mine = {name: _combine(metrics) for name, metrics in _fetched(self._found).items()}
        if processes is None or processes.count == 1:
            return mine
        every: dict[str, list[Metric]] = {}
        for theirs in processes.gather(mine):
            for name, metric in theirs.items():
                every.setdefault(name, []).append(metric)
        return {name: _combine(metrics) for name, metrics in every.items()}

    def state_dict(self) -> dict[str, Any]:
        """What was collected, combined, as plain numbers."""
        found = self.combined().items()
        return {name: [float(m.value), float(m.weight), m.combine] for name, m in found}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._found = {name: [Metric(value, weight, how)] for name, (value, weight, how) in state.items()}

    def numbers(self, processes: Processes | None = None) -> dict[str, float]:
        """The combined values. A mean or an extreme of which nothing was weighed is left out."""
        found = self.combined(processes).items()
        return {name: float(m.value) for name, m in found if m.combine == "sum" or float(m.weight) > 0}


def _combine(metrics: Sequence[Metric]) -> Metric:
    """Of plain numbers."""
    how = metrics[0].combine
    values, weights = [float(metric.value) for metric in metrics], [float(metric.weight) for metric in metrics]
    if how == "sum":
        return Metric(sum(values), combine="sum")
    if how != "mean":
        counted = [value for value, share in zip(values, weights, strict=True) if share > 0]
        if not counted:
            return Metric(0.0, 0.0, combine=how)
        # Python's max and min pass over a NaN, or not, by its place.
        unknown = any(math.isnan(value) for value in counted)
        return Metric(math.nan if unknown else _EXTREMES[how](counted), combine=how)
    weight = sum(weights)
    # A part that weighs nothing may hold anything, NaN included.
    added = sum(value * share for value, share in zip(values, weights, strict=True) if share > 0)
    return Metric(added / weight if weight > 0 else 0.0, weight)


def _fetched(found: Mapping[str, Sequence[Metric]]) -> dict[str, list[Metric]]:
    """The same as plain numbers, fetched from a device in one go."""
    numbers = [number for metrics in found.values() for metric in metrics for number in (metric.value, metric.weight)]
    tensors: dict[torch.device, list[Tensor]] = {}
    for number in numbers:
        if isinstance(number, Tensor):
            tensors.setdefault(number.device, []).append(number.detach().double().reshape(()))
    fetched = {device: iter(torch.stack(there).tolist()) for device, there in tensors.items()}
    plain = iter([next(fetched[x.device]) if isinstance(x, Tensor) else float(x) for x in numbers])
    return {
        name: [Metric(next(plain), next(plain), metric.combine) for metric in metrics]
        for name, metrics in found.items()
    }
