"""Rollouts, rewards and weights as arrays of bytes, which Ray puts into shared memory as they are.

Ray pickles what passes between its own processes, arrays excepted; a tensor would be copied three times.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gymnast_core.types import Reward, Rollout, Task


@dataclass(frozen=True)
class Packed:
    """A tensor."""

    content: NDArray[np.uint8]
    dtype: torch.dtype
    shape: tuple[int, ...]


@dataclass(frozen=True)
class PackedBatch:
    """A batch of rollouts without their tasks, which the receiver has."""

    rollouts: tuple[Mapping[str, Any], ...]
    rewards: tuple[Mapping[str, Any], ...] | None
    """None of rollouts that are to be judged elsewhere."""


def pack(x: Tensor) -> Packed:
    """The content of a tensor on any device; nothing is copied that is in one piece in main memory."""
    whole = x.detach().cpu().contiguous()
    return Packed(whole.reshape(-1).view(torch.uint8).numpy(), whole.dtype, tuple(whole.shape))


def seen(packed: Packed) -> Tensor:
    """The tensor, in the memory in which it came: it must not be written to, and not be kept."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(packed.content).view(packed.dtype).reshape(packed.shape)


def unpack(packed: Packed) -> Tensor:
    """The tensor, in memory of its own."""
    return seen(packed).clone()


def pack_state(value: Any) -> Any:
    """Nested dicts and lists with their tensors packed."""
    if isinstance(value, Tensor):
        return pack(value)
    if isinstance(value, Mapping):
        return {key: pack_state(item) for key, item in value.items()}
    return [pack_state(item) for item in value] if isinstance(value, list | tuple) else value


def unpack_state(value: Any) -> Any:
    """The inverse of `pack_state`."""
    if isinstance(value, Packed):
        return unpack(value)
    if isinstance(value, Mapping):
        return {key: unpack_state(item) for key, item in value.items()}
    return [unpack_state(item) for item in value] if isinstance(value, list) else value


def pack_batch(rollouts: Sequence[Rollout], rewards: Sequence[Reward] | None) -> PackedBatch:
    """A batch for another process."""
    return PackedBatch(
        tuple(_packed(rollout, leave_out="task") for rollout in rollouts),
        None if rewards is None else pack_rewards(rewards),
    )


def unpack_batch(packed: PackedBatch, tasks: Sequence[Task]) -> tuple[list[Rollout], list[Reward] | None]:
    """The rollouts of those tasks, and their rewards if there are any."""
    rollouts = [Rollout(task=task, **_unpacked(given)) for task, given in zip(tasks, packed.rollouts, strict=True)]
    return rollouts, None if packed.rewards is None else unpack_rewards(packed.rewards)


def pack_rewards(rewards: Sequence[Reward]) -> tuple[Mapping[str, Any], ...]:
    """Rewards for another process."""
    return tuple(_packed(reward) for reward in rewards)


def unpack_rewards(packed: Sequence[Mapping[str, Any]]) -> list[Reward]:
    """The inverse of `pack_rewards`."""
    return [Reward(**_unpacked(given)) for given in packed]


def _packed(value: Rollout | Reward, leave_out: str = "") -> dict[str, Any]:
    given = {field.name: getattr(value, field.name) for field in fields(value) if field.name != leave_out}
    return {name: pack(item) if isinstance(item, Tensor) else item for name, item in given.items()}


def _unpacked(given: Mapping[str, Any]) -> dict[str, Any]:
    return {name: unpack(item) if isinstance(item, Packed) else item for name, item in given.items()}
