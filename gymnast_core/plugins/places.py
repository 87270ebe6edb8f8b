"""Where components stand in a config, and of which kind they are: told by the name of the key."""

import re
from collections.abc import Mapping
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
