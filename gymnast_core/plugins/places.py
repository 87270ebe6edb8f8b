"""Where components stand in a config, and of which kind they are: told by the name of the key."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from gymnast_core.plugins.registry import Registry, registries

_KEYS = {
    "world model": ("world_model", "world", "worlds", "beside", "environment", "also"),
    "policy": ("policy", "policies"),
    "reward model": ("reward_model", "reward", "rewards", "judge", "audit", "auditor", "environment_reward"),
    "optimizer": ("optimizer",),
    "dataset": (
        "tasks", "episodes", "demonstrations", "validation", "clips", "canary", "target", "targets", "retention",
        "others", "earlier", "dataset", "of",
    ),
}  # fmt: skip
_LABELLED = ("policies", "worlds", "rewards")
_BEFORE_ARGUMENT = re.compile(r"(?:(?P<place>[^\s=]+?)\.)?args\.(?=[^\s=]+=)")
"""What a config has before the key of a component's argument: `policy.args.` of `policy.args.dtype=bfloat16`."""


def is_component(value: Any) -> bool:
    """Whether plain values name a component: {name: …, args: …}, or the name alone."""
    return isinstance(value, Mapping) and isinstance(value.get("name"), str) and set(value) <= {"name", "args"}


def registry_at(path: str) -> Registry[Any] | None:
    """The registry of the components at a dotted key ("evaluation.world", "policies.mine", "tasks.args.of[0]").

    None where the key's name does not tell: a plugin's own field, which the plugin itself reads.
    """
    names = [re.sub(r"\[\d+\]", "", name) for name in path.split(".")]
    # Of "policies.mine" the last name is a label.
    name = names[-2] if len(names) > 1 and names[-2] in _LABELLED else names[-1]
    if name == "engine":
        from gymnast_core.training.engine import engines

        return engines()
    return next((registry for registry in registries() if name in _KEYS[registry.kind]), None)


def arguments_of(registry: Registry[Any], name: str, overrides: Sequence[str]) -> dict[str, Any]:
    """The arguments of one component, for commands that take them as KEY=VALUE, without a place in a config.

    `PLACE.args.KEY=VALUE`, as configs have it and errors advise it, means the same, where PLACE is a key at which a
    component of that kind may stand and no argument of this one; so does `args.KEY=VALUE`. Raises `ConfigError` for
    what is no `KEY=VALUE`, `PluginError` if the plugin cannot be loaded.
    """
    from gymnast_core.config.load import parse_overrides

    cls: Any = registry.load(name)
    own = {field.name for field in fields(cls.Config)}
    return parse_overrides([_without_place(text, registry, own) for text in overrides])


def _without_place(override: str, registry: Registry[Any], own: set[str]) -> str:
    found = _BEFORE_ARGUMENT.match(override)
    if found is None or override.partition(".")[0] in own:
        return override
    place = found["place"]
    return override[found.end() :] if place is None or registry_at(place) is registry else override
