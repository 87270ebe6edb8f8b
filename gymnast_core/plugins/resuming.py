"""What of a component a resumed command may change: where it runs, how fast, and what it may cost."""

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from gymnast_core.config.schema import ComponentConfig
from gymnast_core.errors import PluginError
from gymnast_core.plugins.registry import registries

KINDS = ("world_models", "policies", "reward_models", "optimizers", "datasets")


def free_keys(key: str, part: ComponentConfig | Mapping[str, Any] | None) -> list[str]:
    """The keys below `key`, where `part` stands in a config, that change nothing of what it computes
    (`Component.free_on_resume`); those of the parts that it is built around, too."""
    if part is None:
        return []
    name, args = (part.name, part.args) if isinstance(part, ComponentConfig) else (part["name"], part.get("args"))
    found = [f"{key}.args.{argument}" for argument in _free(str(name))]
    for argument, value in (args or {}).items():
        inside = value if isinstance(value, list | tuple) else [value]
        for place, item in enumerate(inside):
            if _is_part(item):
                where = f"{key}.args.{argument}" + (f".{place}" if isinstance(value, list | tuple) else "")
                found += free_keys(where, item)
    return found


def free_within(key: str, value: Any) -> list[str]:
    """The same of all parts inside of nested values, e.g. of a section that holds another command's config."""
    if _is_part(value):
        return free_keys(key, value)
    if isinstance(value, Mapping):
        return [found for name, item in value.items() for found in free_within(f"{key}.{name}", item)]
    return []


def _free(name: str) -> set[str]:
    """Of whatever is installed under that name, as far as it can be loaded."""
    found: set[str] = set()
    for registry in (getattr(registries(), kind) for kind in KINDS):
        if name in registry.names():
            with suppress(PluginError):  # whoever builds it says what is wrong
                found |= set(registry.load(name).free_on_resume)
    return found


def _is_part(value: Any) -> bool:
    return isinstance(value, Mapping) and isinstance(value.get("name"), str) and set(value) <= {"name", "args"}
