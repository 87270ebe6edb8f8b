"""Weights that the processes of a training share out (FSDP2, arXiv 2304.11277): each holds a part of every one.

Reinforcement learning acts as well, and how often differs between the processes: whoever acts, measures, judges or
saves must not need the others for each decision. So every process keeps the policy whole for that, without gradients
or an optimizer, and a `Learner` beside it: a copy whose weights, gradients, float32 copies and optimizer state are
shared out. It learns in step with those of the other processes, and hands over what it learned once an iteration.
"""

import copy
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, distributed, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

from gymnast_core.errors import ConfigError
from gymnast_core.interfaces import Policy, Trainable


@runtime_checkable
class Shards(Protocol):
    """What a component defines to be trained with trainer.strategy=fsdp2."""

    def shard(self, mesh: DeviceMesh) -> None:
        """Apply `torch.distributed.fsdp.fully_shard` to the module and its layers, in place.

        What is trained by (`training_loss`, a policy's `evaluate`) and `validate` are called on the component
        afterwards, by all processes alike.
        """


def check_shards(component: Trainable) -> None:
    """Raise `ConfigError` for a component whose weights cannot be shared out."""
    if not isinstance(component, Shards):
        raise ConfigError(
            f"trainer.strategy=fsdp2: {type(component).__name__} does not define shard(). Set trainer.strategy=ddp."
        )


def begin_alike(modules: Sequence[nn.Module], device: torch.device) -> None:
    """Put modules on their device, with the leader's weights in every process."""
    for module in modules:
        module.to(device)
        for tensor in module.state_dict().values():
            if isinstance(tensor, Tensor):
                distributed.broadcast(tensor.data, src=0)


class Learner:
    """A copy of a policy that learns, its weights shared out; gradients are summed over the processes."""

    def __init__(self, policy: Policy, mesh: DeviceMesh) -> None:
        """Whole weights are copied, the same in every process. `policy` stays as it is, and learns by `hand_over`."""
        self._whole = policy
        self.policy = copy.deepcopy(policy)
        assert isinstance(self.policy, Shards)
        self.policy.shard(mesh)
        for part in self._parts():
            # Sums, where FSDP2 would divide by the number of processes; not every backend knows how to do both.
            part.set_gradient_divide_factor(1.0)
            part.set_force_sum_reduction_for_comms(True)

    @torch.no_grad()
    def hand_over(self) -> None:
        """Let the whole policy have what was learned; every process calls this."""
        for part in self._parts():
            part.reshard()
        own = dict(self._whole.named_parameters())
        for name, learned in self.policy.named_parameters():
            if learned.requires_grad:
                own[name].copy_(learned.full_tensor() if isinstance(learned, DTensor) else learned)

    def _parts(self) -> list[FSDPModule]:
        return [module for module in self.policy.modules() if isinstance(module, FSDPModule)]


def clip_gradients(parameters: Sequence[nn.Parameter], most: float) -> Tensor:
    """`clip_grad_norm_`, also of parameters of which some are shared out; returns the norm before, whole."""
    shared = [p for p in parameters if isinstance(p, DTensor)]
    if not shared:
        return nn.utils.clip_grad_norm_(parameters, most)
    whole = [p.grad for p in parameters if p.grad is not None and not isinstance(p, DTensor)]
    found = nn.utils.get_total_norm([p.grad for p in shared if p.grad is not None])
    found = found.full_tensor() if isinstance(found, DTensor) else found
    norm = torch.hypot(found, nn.utils.get_total_norm(whole).to(found)) if whole else found
    factor = (most / (norm + 1e-6)).clamp(max=1.0)  # as torch does it
    for parameter in parameters:
        if parameter.grad is not None:
            gradient = parameter.grad.to_local() if isinstance(parameter.grad, DTensor) else parameter.grad
            gradient.mul_(factor.to(gradient.dtype))
    return norm
