"""Weights of which each process holds a part (FSDP2): sharing them out, and gathering them for what is written."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
)
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor

from gymnast_core.errors import ConfigError
from gymnast_core.interfaces import Trainable

_WHOLE = StateDictOptions(full_state_dict=True, cpu_offload=True)


@runtime_checkable
class Shards(Protocol):
    """What a component defines to be trained with trainer.strategy=fsdp2."""

    def shard(self, mesh: DeviceMesh) -> None:
        """Apply `torch.distributed.fsdp.fully_shard` to the module and its layers, in place.

        `training_loss` and `validate` are called on the component afterwards, by all processes alike.
        """


def check_shards(component: Trainable) -> None:
    """Raise `ConfigError` for a component whose weights cannot be shared out."""
    if not isinstance(component, Shards):
        raise ConfigError(
            f"trainer.strategy=fsdp2: {type(component).__name__} does not define shard(). Set trainer.strategy=ddp."
        )


def whole_weights(network: nn.Module) -> dict[str, Tensor]:
    """All weights, in host memory of the leader; {} elsewhere. Every process calls this."""
    weights: dict[str, Any] = get_model_state_dict(network, options=_WHOLE)
    return weights


def whole(x: Tensor) -> Tensor:
    """A tensor that may be shared out, gathered."""
    return x.full_tensor() if isinstance(x, DTensor) else x
