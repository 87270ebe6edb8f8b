"""Whether a step moved what it was to move: of a dtype too coarse for the step, most values stay as they were."""

import logging
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from gymnast_core.training.rounding import is_coarse
from gymnast_core.types import Metric

logger = logging.getLogger(__name__)

_SAMPLE = 4096
"""Values that are watched of each parameter, evenly spaced: no copy of all weights is wanted."""
LIMITS = {True: 0.5, False: 0.99}
"""Share of values left in place above which somebody is told, of coarse dtypes and of others. Of float32, small
gradients alone can leave many: only a step that moves next to nothing is wrong."""


class Movement:
    """Looks at parameters between their gradients and their step, and again behind it.

    >>> movement = Movement(parameters)
    >>> optimizer.step()
    >>> movement.unmoved()
    """

    def __init__(self, parameters: Sequence[nn.Parameter]) -> None:
        self._watched = [_Watched(p, p.grad) for p in parameters if p.grad is not None and p.numel()]

    def unmoved(self) -> Metric:
        """Share of the values with a gradient that kept their value; it weighs nothing if none has a gradient."""
        counts = [watched.counts() for watched in self._watched]
        if not counts:
            return Metric(0.0, 0.0)
        stayed, had = torch.stack(counts).sum(0)
        return Metric(stayed / had.clamp(min=1), (had > 0).double())

    def dtypes(self) -> list[torch.dtype]:
        """Of what was watched, the coarsest first."""
        found = {watched.parameter.dtype for watched in self._watched}
        return sorted(found, key=lambda dtype: -torch.finfo(dtype).eps)


class _Watched:
    def __init__(self, parameter: nn.Parameter, gradient: Tensor) -> None:
        self.parameter = parameter
        self._has = _sample(gradient) != 0
        self._before = _sample(parameter.detach()).clone()

    def counts(self) -> Tensor:
        """Values that stayed and values that had a gradient, of the whole parameter as far as the sample tells."""
        stayed = (_sample(self.parameter.detach()) == self._before) & self._has
        scale = _local(self.parameter).numel() / max(len(self._before), 1)
        return torch.stack([stayed.sum(), self._has.sum()]).double() * scale


class MovementWatch:
    """Tells once in a run that steps are rounded away."""

    def __init__(self, remedy: str) -> None:
        """`remedy` is what to type next."""
        self._remedy, self._told = remedy, False

    def see(self, movement: Movement, unmoved: Metric, rate: float, step: int) -> None:
        """`rate` is the learning rate of the step: at 0 nothing is to move."""
        dtypes = movement.dtypes()
        if self._told or not dtypes or rate == 0 or not float(unmoved.weight):
            return
        share, dtype = float(unmoved.value), str(dtypes[0]).removeprefix("torch.")
        if share > LIMITS[is_coarse(dtypes[0])]:
            self._told = True
            logger.warning(
                "Gradient step %d left %.0f %% of the trained values as they were, although they have a gradient: the "
                "step is smaller than what %s can hold. %s",
                step, 100 * share, dtype, self._remedy,
            )  # fmt: skip


def _sample(x: Tensor) -> Tensor:
    flat = _local(x).detach().reshape(-1)
    return flat[:: -(-len(flat) // _SAMPLE) or 1]


def _local(x: Tensor) -> Tensor:
    return x.to_local() if isinstance(x, DTensor) else x
