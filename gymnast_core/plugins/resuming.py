"""What of a component a resumed command may change: where it runs, how fast, and what it may cost."""

from collections.abc import Mapping
from typing import Any

from gymnast_core.config.schema import ComponentConfig
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


def _free(name: str) -> set[str]:
    """Of whatever is installed under that name."""
    kinds = [getattr(registries(), kind) for kind in KINDS]
    return {argument for kind in kinds if name in kind.names() for argument in kind.load(name).free_on_resume}


def _is_part(value: Any) -> bool:
    return isinstance(value, Mapping) and isinstance(value.get("name"), str) and set(value) <= {"name", "args"}
