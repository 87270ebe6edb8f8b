"""Weights of which each process holds a part (FSDP2): gathering them for what is written."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
)
from torch.distributed.tensor import DTensor

_WHOLE = StateDictOptions(full_state_dict=True, cpu_offload=True)


def whole_weights(network: nn.Module) -> dict[str, Tensor]:
    """All weights, in host memory of the leader; {} elsewhere. Every process calls this."""
    weights: dict[str, Any] = get_model_state_dict(network, options=_WHOLE)
    return weights


def whole(x: Tensor) -> Tensor:
    """A tensor that may be shared out, gathered."""
    return x.full_tensor() if isinstance(x, DTensor) else x
