"""FSDP2 (arXiv 2304.11277, by parameter) for policies of this package: each process holds a part of every weight.

A layer's weights are gathered while it computes. What belongs to no layer (embeddings, token head, projector) is
gathered once for a whole call of the policy, because those calls use parts of it in several places. Frozen vision
towers whose features are kept stay whole.
"""

from __future__ import annotations

from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

from gymnast_core.errors import ConfigError
from gymnast_openvla_oft.model import OPTIONAL_PARTS, OFTModel
from gymnast_openvla_oft.tuning import blocks

CALLS = ("act", "evaluate", "training_loss", "validate")
"""Methods from which the network is entered."""


def shard(policy: nn.Module, model: OFTModel, mesh: DeviceMesh, *, keeps_features: bool) -> None:
    """Share the weights of a policy and its `model` among the processes of a one-dimensional mesh, in place.

    Whole weights are wanted before: every process loads the same. Optimizers are built afterwards and before the first
    call, after which `parameters()` shows some weights gathered until the next backward pass. Raises `ConfigError` for
    LoRA on a layer that also learns in another dtype.
    """
    # Features that only one process lacks must be computed without the others: towers that keep them stay whole.
    towers = set(model.vision_backbone.parameters()) if keeps_features else set()
    optional = [getattr(model, name) for name in OPTIONAL_PARTS if hasattr(model, name)]
    auxiliary = [part for part in (getattr(policy, "auxiliary", None),) if part is not None]
    for unit in (*blocks(model), *optional, *auxiliary):
        if not towers.issuperset(unit.parameters()):
            _check_dtypes(unit)
            fully_shard(unit, mesh=mesh)
    fully_shard(policy, mesh=mesh, ignored_params=towers)
    for name in CALLS:
        register_fsdp_forward_method(policy, name)


def _check_dtypes(unit: nn.Module) -> None:
    dtypes = {parameter.dtype for parameter in unit.parameters() if parameter.requires_grad}
    if len(dtypes) > 1:
        raise ConfigError(
            "FSDP2 cannot share a layer whose FiLM learns in bfloat16 and whose LoRA factors in float32: set "
            "policy.args.dtype=float32, or trainer.strategy=ddp."
        )
