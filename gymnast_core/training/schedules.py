"""Learning-rate schedules, one for every loop: a linear warm-up, then constant, linear or cosine down to a floor."""

import math
from dataclasses import dataclass

DECAYS = ("cosine", "linear", "constant")
"""What `decay` may be."""


@dataclass(frozen=True)
class Schedule:
    """The learning rate of each gradient step, from 0 on.

    >>> Schedule(warmup=2, decay="linear", steps=4, floor=0.5).rate(4, peak=1.0)
    0.75
    """

    warmup: int = 0
    """Steps over which the rate rises linearly to its peak; step `warmup` - 1 has it."""
    decay: str = "cosine"
    """How it falls from there: one of `DECAYS`."""
    steps: int | None = None
    """Steps after the warm-up over which it falls; None: it does not."""
    floor: float = 0.0
    """Share of the peak at which it ends, and stays."""

    def rate(self, step: int, peak: float) -> float:
        """The learning rate of a step, at most `peak`."""
        if step < self.warmup:
            return peak * (step + 1) / self.warmup
        if self.steps is None or self.decay == "constant":
            return peak
        progress = min((step - self.warmup) / self.steps, 1.0)
        left = 1.0 - progress if self.decay == "linear" else 0.5 * (1.0 + math.cos(math.pi * progress))
        return peak * (self.floor + (1.0 - self.floor) * left)
