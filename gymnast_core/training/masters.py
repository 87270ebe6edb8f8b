"""Master weights: float32 copies of trained parameters whose own dtype is coarser than the steps that they take.

A bfloat16 number keeps eight bits: a step of less than 1/512 of a weight changes nothing, however often it is
repeated. So the steps are taken on float32 copies ("Mixed Precision Training", arXiv 1710.03740, section 3.1),
gradients are added up in float32, and the policy computes with the copies rounded (see `rounding.py`).
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

from gymnast_core.errors import CheckpointError, ConfigError
from gymnast_core.training.rounding import FINE, is_coarse, rounded, thresholds

logger = logging.getLogger(__name__)
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

    def announce(self) -> None:
        """Say which weights are coarse, and what stands for them; called in the process that speaks."""
        for dtype in {parameter.dtype for parameter in self._live if is_coarse(parameter.dtype)}:
            name = str(dtype).removeprefix("torch.")
            copied = sum(p.numel() for p in self._masters if p.dtype is dtype)
            if copied:
                logger.info(
                    "%s trained values are %s, too coarse for small steps: float32 copies (%.0f MiB) take the steps. "
                    "What acts, is measured and saved is the %s rounding of the copies.",
                    f"{copied:,}", name, copied * FINE.itemsize / 2**20, name,
                )  # fmt: skip
            alone = sum(p.numel() for p in self.coarse if p.dtype is dtype)
            if alone:
                logger.warning(
                    "%s trained values are %s without a float32 copy, because the optimizer did not give them away: "
                    "small steps are lost in them. Keep the weights in float32, or choose another optimizer.",
                    f"{alone:,}", name,
                )  # fmt: skip

    @staticmethod
    def _exchange(optimizer: torch.optim.Optimizer, pairs: Mapping[nn.Parameter, nn.Parameter]) -> None:
        for group in optimizer.param_groups:
            for index, parameter in enumerate(group["params"]):
                if parameter not in pairs:
                    continue
                group["params"][index] = pairs[parameter]
                if parameter in optimizer.state:
                    state = optimizer.state.pop(parameter)
                    optimizer.state[pairs[parameter]] = {key: finer(value) for key, value in state.items()}

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
            put(live, master)

    @contextmanager
    def computing_in(self, dtype: torch.dtype, *, of: nn.Module) -> Iterator[None]:
        """Let fine matrices of a module hold their values rounded to `dtype` meanwhile, for autocast, which would round
        to the nearest: a loss would not see that they moved. Takes a second copy of them as long. What is trained
        beside the module (a critic) decides for itself what it computes in."""
        # In place: FSDP2 knows where a parameter's numbers are.
        shown = [_local(p.detach()) for p in self._rounded_in(of).values()]
        fine = [values.clone() for values in shown]
        try:
            for values in shown:
                values.copy_(_rounded(values, dtype, kept_in=values.dtype))
            yield
        finally:
            for values, kept in zip(shown, fine, strict=True):
                values.copy_(kept)

    @torch.no_grad()
    def round_alike(self, copy: nn.Module, dtype: torch.dtype, *, of: nn.Module) -> None:
        """Round those matrices of a copy of a module for good that `computing_in` rounds of the module, as it does:
        equal weights then compute equal numbers. The copy is whole, also of a module that is shared out."""
        own = dict(copy.named_parameters())
        for name, live in self._rounded_in(of).items():
            part = _shared_like(own[name].detach(), live)
            _local(part).copy_(_rounded(part, dtype, kept_in=part.dtype))
            own[name].copy_(part.full_tensor() if isinstance(part, DTensor) else part)

    def _rounded_in(self, module: nn.Module) -> dict[str, nn.Parameter]:
        """The trained fine matrices of a module, by their names, which `computing_in` rounds."""
        live = set(self._live)
        named = module.named_parameters()
        return {name: p for name, p in named if p in live and p.ndim >= 2 and not is_coarse(p.dtype)}

    def of(self, parameter: nn.Parameter) -> Tensor:
        """The numbers that a parameter stands for, in float32 or finer."""
        return finer(self._masters.get(parameter, parameter).detach())

    def state_dict(self) -> dict[str, Any]:
        """The copies, whole, by the place of their parameter; of shared ones every process must ask."""
        places = enumerate(self._live)
        return {"masters": {place: _whole(self._masters[p].detach()) for place, p in places if p in self._masters}}

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
            master.copy_(_shared_like(saved, master))
        self.write()


def refuse_coarse_statistics(network: nn.Module) -> None:
    """Raise `ConfigError` for layers whose running statistics are of a coarse dtype, in which they stand still."""
    for name, module in network.named_modules():
        mean = getattr(module, "running_mean", None)
        if isinstance(mean, Tensor) and is_coarse(mean.dtype):
            dtype = str(mean.dtype).removeprefix("torch.")
            raise ConfigError(
                f"{type(module).__name__} {name!r} keeps running statistics in {dtype}, in which they stand still: a "
                "step changes them by less than the distance between two numbers. Keep that layer in float32."
            )


@torch.no_grad()
def put(live: Tensor, fine: Tensor) -> None:
    """Write numbers into a tensor, by thresholds if they are finer than its dtype."""
    coarser = is_coarse(live.dtype) and not is_coarse(fine.dtype)
    _local(live).copy_(_rounded(fine, live.dtype) if coarser else _local(fine))


def gathered_state(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """An optimizer's state with whole tensors; of parameters that are shared out, every process must ask."""
    found = optimizer.state_dict()
    state = {place: {key: _whole(x) for key, x in values.items()} for place, values in found["state"].items()}
    return {**found, "state": state}


def restore_state(optimizer: torch.optim.Optimizer, saved: Mapping[str, Any]) -> None:
    """Continue from `gathered_state`: each process takes its part."""
    held = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state = {}
    for place, values in saved["state"].items():
        like = held[place]
        state[place] = {
            key: _shared_like(x, like) if isinstance(x, Tensor) and x.shape == like.shape else x
            for key, x in values.items()
        }
    optimizer.load_state_dict({**saved, "state": state})


def _whole(x: Any) -> Any:
    """A tensor that may be shared out, gathered in host memory: all of them would not fit beside the parts."""
    return x.full_tensor().cpu() if isinstance(x, DTensor) else x


def _shared_like(x: Tensor, like: Tensor) -> Tensor:
    """A whole tensor that every process has, shared out as `like` is."""
    x = x.to(like.device)
    if not isinstance(like, DTensor):
        return x
    return distribute_tensor(x, like.device_mesh, like.placements, src_data_rank=None)


def _rounded(x: Tensor, dtype: torch.dtype, kept_in: torch.dtype | None = None) -> Tensor:
    """What this process holds of float32 numbers, as those of `dtype` (kept in another, if so); contiguous.

    Made in pieces, and the thresholds drawn again each time: both would take as much memory as the weights.
    """
    fine = _local(x).contiguous().view(-1)
    found = torch.empty_like(fine, dtype=kept_in or dtype)
    for number, (now, piece) in enumerate(zip(found.split(_AT_ONCE), fine.split(_AT_ONCE), strict=True)):
        now.copy_(rounded(piece, dtype, thresholds(len(piece), piece.device, number)))
    return found.view(_local(x).shape)


def _local(x: Tensor) -> Tensor:
    return x.to_local() if isinstance(x, DTensor) else x


def finer(value: Any) -> Any:
    """A coarse tensor in float32; anything else as it is."""
    return value.to(FINE) if isinstance(value, Tensor) and is_coarse(value.dtype) else value
