"""Master weights: float32 copies of trained parameters whose own dtype is coarser than the steps that they take.

A bfloat16 number keeps eight bits: a step of less than 1/512 of a weight changes nothing, however often it is
repeated. So the steps are taken on float32 copies ("Mixed Precision Training", arXiv 1710.03740, section 3.1),
gradients are added up in float32, and the policy computes with the copies rounded (see `rounding.py`).
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

from gymnast_core.errors import CheckpointError
from gymnast_core.training.rounding import FINE, is_coarse, rounded, thresholds

_AT_ONCE = 1 << 24
"""Numbers that are rounded at once, for want of memory."""


class MasterWeights:
    """The copies of one training. Parameters that are fine enough stand for themselves."""

    def __init__(self, parameters: Sequence[nn.Parameter]) -> None:
        """Call it when the parameters are on their device and, if they are to be, shared out. They may be DTensors."""
        self._live = list(parameters)
        self._masters: dict[nn.Parameter, nn.Parameter] = {}

    @property
    def stepped(self) -> list[nn.Parameter]:
        """What gradient steps are taken on, in the order of the parameters: a copy where there is one."""
        return [self._masters.get(parameter, parameter) for parameter in self._live]

    @property
    def coarse(self) -> list[nn.Parameter]:
        """Trained parameters of a coarse dtype that no copy stands for."""
        return [p for p in self._live if is_coarse(p.dtype) and p not in self._masters]

    def adopt(self, optimizer: torch.optim.Optimizer) -> None:
        """Put copies in the place of the coarse parameters that `optimizer` holds.

        It was built for the parameters themselves, by which its author may tell them apart. One that does not let go of
        them keeps them: `coarse` then tells.
        """
        wanted = set(self.coarse)
        for parameter in (p for group in optimizer.param_groups for p in group["params"]):
            if parameter in wanted:
                master = nn.Parameter(parameter.detach().to(FINE, copy=True))
                self._masters[parameter] = master
        self._exchange(optimizer, self._masters)
        held = {p for group in optimizer.param_groups for p in group["params"]}
        self._masters = {live: master for live, master in self._masters.items() if live not in held}

    @staticmethod
    def _exchange(optimizer: torch.optim.Optimizer, pairs: Mapping[nn.Parameter, nn.Parameter]) -> None:
        for group in optimizer.param_groups:
            for index, parameter in enumerate(group["params"]):
                if parameter not in pairs:
                    continue
                group["params"][index] = pairs[parameter]
                if parameter in optimizer.state:
                    state = optimizer.state.pop(parameter)
                    optimizer.state[pairs[parameter]] = {key: _finer(value) for key, value in state.items()}

    @torch.no_grad()
    def follow(self) -> None:
        """Take over what others wrote into the parameters since the last `write`: loaded or broadcast weights."""
        for live, master in self._masters.items():
            now, kept = _local(live), _local(master)
            kept.copy_(torch.where(now == _rounded(kept, now.dtype), kept, now.to(FINE)))

    @torch.no_grad()
    def take_gradients(self) -> None:
        """Add the gradients of the parameters to those of their copies, in float32, and leave none behind.

        After every backward pass: what is added up in bfloat16 stands still when it is 256 times its parts.
        """
        for live, master in self._masters.items():
            if live.grad is None:
                continue
            gradient, live.grad = live.grad.to(FINE), None
            master.grad = gradient if master.grad is None else master.grad.add_(gradient)

    @torch.no_grad()
    def write(self) -> None:
        """After a step: the parameters become the rounded copies."""
        for live, master in self._masters.items():
            _local(live).copy_(_rounded(master, live.dtype))

    @contextmanager
    def computing_in(self, dtype: torch.dtype) -> Iterator[None]:
        """Let fine matrices show their values rounded to `dtype` meanwhile, for autocast, which would round to the
        nearest: a loss would not see that they moved. Gradients are theirs. Parameters that are shared out stay as they
        are."""
        shown = [p for p in self._live if p.ndim >= 2 and not is_coarse(p.dtype) and not isinstance(p, DTensor)]
        fine = [parameter.data for parameter in shown]
        try:
            for parameter in shown:
                parameter.data = _rounded(parameter.data, dtype, kept_in=parameter.dtype)
            yield
        finally:
            for parameter, values in zip(shown, fine, strict=True):
                parameter.data = values

    def state_dict(self) -> dict[str, Any]:
        """The copies, whole, by the place of their parameter; of shared ones every process must ask."""
        places = enumerate(self._live)
        return {"masters": {place: whole(self._masters[p].detach()) for place, p in places if p in self._masters}}

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue with the copies of `state_dict`; a copy that it lacks begins with the parameter.

        Raises `CheckpointError` if one does not belong to these parameters.
        """
        for place, saved in state["masters"].items():
            live = self._live[place] if 0 <= place < len(self._live) else None
            master = None if live is None else self._masters.get(live)
            if master is None or master.shape != saved.shape:
                raise CheckpointError(
                    f"A snapshot holds a float32 copy of shape {tuple(saved.shape)} for trained parameter {place}, "
                    "which has none of that shape here. Resume with the policy, dtype and optimizer of the run."
                )
            master.copy_(shared_like(saved, master))
        self.write()


def whole(x: Tensor) -> Tensor:
    """A tensor that may be shared out, gathered."""
    return x.full_tensor() if isinstance(x, DTensor) else x


def shared_like(x: Tensor, like: Tensor) -> Tensor:
    """A whole tensor that every process has, shared out as `like` is."""
    x = x.to(like.device)
    if not isinstance(like, DTensor):
        return x
    return distribute_tensor(x, like.device_mesh, like.placements, src_data_rank=None)


def _rounded(master: Tensor, dtype: torch.dtype, kept_in: torch.dtype | None = None) -> Tensor:
    """What this process holds of a copy, as numbers of `dtype` (kept in another, if so); contiguous.

    Made in pieces, and the thresholds drawn again each time: both would take as much memory as the weights.
    """
    fine = _local(master).contiguous().view(-1)
    found = torch.empty_like(fine, dtype=kept_in or dtype)
    for number, (now, piece) in enumerate(zip(found.split(_AT_ONCE), fine.split(_AT_ONCE), strict=True)):
        now.copy_(rounded(piece, dtype, thresholds(len(piece), piece.device, number)))
    return found.view(_local(master).shape)


def _local(x: Tensor) -> Tensor:
    return x.to_local() if isinstance(x, DTensor) else x


def _finer(value: Any) -> Any:
    """A value of an optimizer's state, as it is kept for a float32 parameter."""
    return value.to(FINE) if isinstance(value, Tensor) and is_coarse(value.dtype) else value
