"""What workers have to be told before they work: the trained weights, and what other parts remember."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from gymnast_core.errors import PluginError
from gymnast_core.interfaces import Parts, Policy
from gymnast_core.training.unchanging import fingerprint
from gymnast_ray.wire import Packed, pack, pack_state, seen, unpack_state

TOLD = ("world_model", "reward_model")
"""Parts whose `state_dict` workers are told: of a policy it is the weights, and the optimizer stays where it learns."""


def trained(policy: Policy) -> dict[str, Tensor]:
    """The parameters that learn, by name."""
    return {name: parameter for name, parameter in policy.named_parameters() if parameter.requires_grad}


def frozen(policy: Policy) -> dict[str, Tensor]:
    """Everything else that a policy's state holds, by name."""
    every = policy.named_parameters(remove_duplicate=False)  # a weight that two layers use has two names
    learns = {name for name, parameter in every if parameter.requires_grad}
    return {
        name: value for name, value in policy.state_dict().items() if name not in learns and isinstance(value, Tensor)
    }


def packed_weights(policy: Policy) -> dict[str, Packed]:
    """The trained weights. Processes that share weights out have the policy that acts whole beside them."""
    return {name: pack(parameter) for name, parameter in trained(policy).items()}


def packed_frozen(policy: Policy) -> dict[str, Packed]:
    """The other ones, for a worker whose copy was built with different ones."""
    return {name: pack(value) for name, value in frozen(policy).items()}


def frozen_prints(policy: Policy) -> dict[str, str]:
    """Fingerprints of the other ones."""
    return {name: fingerprint(value) for name, value in frozen(policy).items()}


def states_key(parts: Parts) -> str:
    """A name for what `packed_states` holds."""
    states = {name: part.state_dict() for name, part in parts.components().items() if name in TOLD}
    return repr(_printed(states))


def packed_states(parts: Parts) -> dict[str, Any]:
    """What the parts that workers have copies of remember now; a policy's weights apart."""
    return {name: pack_state(part.state_dict()) for name, part in parts.components().items() if name in TOLD}


@torch.no_grad()
def take_weights(policy: Policy, given: Mapping[str, Packed]) -> None:
    """Let the policy have these weights. Raises `PluginError` if it has no such weights."""
    own: dict[str, Tensor] = {**dict(policy.named_buffers()), **dict(policy.named_parameters())}
    for name, packed in given.items():
        if name not in own or tuple(own[name].shape) != packed.shape:
            raise PluginError(
                f"{type(policy).__name__} has no weight {name!r} of shape {packed.shape} on a worker, but has it in "
                "the process that trains: what a policy is must follow from its Config."
            )
        own[name].copy_(seen(packed))


def take_states(parts: Parts, given: Mapping[str, Any]) -> None:
    """Let the parts remember that."""
    for name, part in parts.components().items():
        if name in given:
            part.load_state_dict(unpack_state(given[name]))


def _printed(value: Any) -> Any:
    """Nested values with their tensors' fingerprints in their place."""
    if isinstance(value, Tensor):
        return fingerprint(value)
    if isinstance(value, Mapping):
        return {key: _printed(item) for key, item in value.items()}
    return [_printed(item) for item in value] if isinstance(value, list | tuple) else value
