"""Means and spreads over everything that one update learns from, in all processes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gymnast_core.processes import Processes


@dataclass(frozen=True)
class Moments:
    """Mean and variance (of the whole population) of some numbers; 0 where there are none."""

    count: float
    mean: float
    variance: float

    @classmethod
    def of(cls, values: Tensor, counted: Tensor, processes: Processes) -> Moments:
        """Of the entries that are counted (bool), over all processes. Each process must ask, even one that has none."""
        mine = torch.where(counted, values.double(), 0.0)
        count, total = _sum([float(counted.sum()), float(mine.sum())], processes)
        mean = total / max(count, 1.0)
        # Twice through the numbers: the difference of large squares would leave rounding errors alone.
        (squares,) = _sum([float(torch.where(counted, (mine - mean).square(), 0.0).sum())], processes)
        return cls(count, mean, squares / max(count, 1.0))

    def whiten(self, values: Tensor, counted: Tensor, epsilon: float) -> Tensor:
        """(x - mean) / (std + epsilon), float32; 0 where nothing is counted, and everywhere if all are alike."""
        spread = self.variance**0.5
        if spread <= 1e-8 * max(1.0, abs(self.mean)):
            return torch.zeros_like(values, dtype=torch.float32)
        return torch.where(counted, (values.double() - self.mean) / (spread + epsilon), 0.0).float()


def _sum(numbers: list[float], processes: Processes) -> list[float]:
    # Plain numbers, added in the order of the ranks: the same bits in every process, whatever device it works on.
    return [sum(values) for values in zip(*processes.gather(numbers), strict=True)]
