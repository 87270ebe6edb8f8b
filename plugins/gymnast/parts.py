"""Parts by name, as a config names them: built from keyword arguments that are checked as a config's are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from gymnast_core.plugins.registry import registries

if TYPE_CHECKING:
    from gymnast_core.interfaces import Dataset, Optimizer, Policy, RewardModel, WorldModel
    from gymnast_core.types import Episode, Task


def world_model(name: str, **args: Any) -> WorldModel:
    """A world model: `gymnast.world_model("worldgym", checkpoint=PATH)`.

    Raises `PluginError` for an unknown name, `ConfigError` for arguments that do not fit, and what building raises.
    """
    return registries().world_models.build(name, _plain(args))


def policy(name: str, **args: Any) -> Policy:
    """A policy: `gymnast.policy("openvla-oft", checkpoint=PATH)`. Errors as of `world_model`."""
    return registries().policies.build(name, _plain(args))


def reward_model(name: str, **args: Any) -> RewardModel:
    """A judge: `gymnast.reward_model("success-classifier", checkpoint=PATH)`. Errors as of `world_model`."""
    return registries().reward_models.build(name, _plain(args))


def optimizer(name: str, **args: Any) -> Optimizer:
    """An algorithm: `gymnast.optimizer("grpo", group_size=8)`. Errors as of `world_model`."""
    return registries().optimizers.build(name, _plain(args))


def dataset(name: str, **args: Any) -> Dataset:
    """A dataset, of tasks, episodes or both: `gymnast.dataset("lerobot", path=PATH)`. Errors as of `world_model`."""
    return registries().datasets.build(name, _plain(args))


def tasks(name: str, **args: Any) -> Sequence[Task]:
    """The tasks of a dataset: `gymnast.tasks("tabletop", count=4)`. Errors as of `world_model`."""
    return dataset(name, **args).tasks()


def episodes(name: str, **args: Any) -> Sequence[Episode]:
    """The episodes of a dataset, read as they are indexed. Errors as of `world_model`."""
    return dataset(name, **args).episodes()


def _plain(args: dict[str, Any]) -> dict[str, Any]:
    """The arguments as a config holds them: paths as texts."""
    from pathlib import Path

    return {name: str(value) if isinstance(value, Path) else value for name, value in args.items()}
