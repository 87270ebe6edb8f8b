"""Rollouts, tasks and rewards as nested dicts of tensors and plain values, for snapshots."""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from torch import Tensor

from gymnast_core.types import EnvironmentStart, Episode, Reward, Rollout, Task


def to_state(value: Any) -> Any:
    """Dataclasses as dicts, sequences as lists; tensors and plain values as they are, nothing copied."""
    if is_dataclass(value) and not isinstance(value, type):
        return {item.name: to_state(getattr(value, item.name)) for item in fields(value)}
    if isinstance(value, Mapping):
        return {key: to_state(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_state(item) for item in value]
    if isinstance(value, Tensor | int | float | str) or value is None:
        return value
    raise TypeError(f"A snapshot cannot hold a {type(value).__name__}: {value!r}")


def rollout_from_state(state: Mapping[str, Any]) -> Rollout:
    """The inverse of `to_state`."""
    return Rollout(**{**state, "task": _task(state["task"]), "cameras": tuple(state["cameras"])})


def reward_from_state(state: Mapping[str, Any]) -> Reward:
    """The inverse of `to_state`."""
    return Reward(**state)


def _task(state: Mapping[str, Any]) -> Task:
    expert = state["expert"]
    return Task(
        **{
            **state,
            "cameras": tuple(state["cameras"]),
            "start": _start(state["start"]),
            "expert": None if expert is None else _episode(expert),
        }
    )


def _episode(state: Mapping[str, Any]) -> Episode:
    return Episode(**{**state, "cameras": tuple(state["cameras"]), "start": _start(state["start"])})


def _start(state: Mapping[str, Any] | None) -> EnvironmentStart | None:
    return None if state is None else EnvironmentStart(**state)
