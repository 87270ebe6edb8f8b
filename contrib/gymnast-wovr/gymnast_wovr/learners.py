"""What of a run is refitted: the live part, and the config it was built from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from gymnast_core.config import ComponentConfig
from gymnast_core.errors import ConfigError
from gymnast_core.interfaces import RewardModel
from gymnast_core.plugins.compose import registries
from gymnast_core.plugins.places import is_component
from gymnast_dyna.refit import lacks


@dataclass(frozen=True)
class Learner:
    """A part that goes on learning."""

    live: Any
    """The `Trainable` in use."""
    part: ComponentConfig
    """Its name and arguments."""


def learning_judge(judge: RewardModel, part: ComponentConfig) -> Learner:
    """The one judge that learns, of a reward model and those that it asks.

    Raises `ConfigError` if none does or several do: then nothing says which is meant.
    """
    live = [asked for asked in _asked(judge) if not lacks(type(asked))]
    if len(live) != 1:
        names = ", ".join(sorted({type(asked).__name__ for asked in _asked(judge)}))
        raise ConfigError(
            f"world_model.args.judge: of reward_model={part.name} ({names}), {len(live) or 'no'} judges can be "
            "refitted, and it must be one. Choose one that `gymnast fit` can train and that is loaded from a "
            "checkpoint, e.g. success-classifier, or set world_model.args.judge=null."
        )
    parts = [found for found in _configs(part) if registries().reward_models.load(found.name) is type(live[0])]
    if len(parts) != 1 or parts[0].args.get("checkpoint") is None:
        raise ConfigError(
            f"world_model.args.judge: nothing in reward_model={part.name} says which checkpoint "
            f"{type(live[0]).__name__} begins with. Set its `checkpoint`, or world_model.args.judge=null."
        )
    return Learner(live[0], parts[0])


def _asked(judge: RewardModel, seen: frozenset[int] = frozenset()) -> Iterator[RewardModel]:
    """A reward model and those that it holds."""
    if id(judge) in seen:
        return
    yield judge
    for value in vars(judge).values():
        items = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else [value]
        for item in items:
            if isinstance(item, RewardModel):
                yield from _asked(item, seen | {id(judge)})


def _configs(value: Any) -> Iterator[ComponentConfig]:
    """Configs of reward models in a reward model's config."""
    if isinstance(value, ComponentConfig):
        value = {"name": value.name, "args": value.args}
    if isinstance(value, Mapping):
        if is_component(value) and value["name"] in registries().reward_models.names():
            yield ComponentConfig(value["name"], dict(value.get("args") or {}))
        for item in value.values():
            yield from _configs(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _configs(item)
