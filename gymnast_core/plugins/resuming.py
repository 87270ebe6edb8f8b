"""What of a component a resumed command may change: where it runs, how fast, and what it may cost."""

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, fields
from typing import Any

from gymnast_core.errors import PluginError
from gymnast_core.plugins.places import is_component, registry_at
from gymnast_core.plugins.registry import Registry, registries


def free_arguments(config: Any) -> list[str]:
    """The keys of a command's config that change nothing of what its components compute (`Component.free_on_resume`),
    those of the parts that they are built around, and of sections that hold another command's config, too."""
    return list(dict.fromkeys(_free_within("", asdict(config))))


def _free_within(key: str, value: Any) -> list[str]:
    found = [f"{key}.args.{name}" for name in _free(key, value["name"])] if is_component(value) else []
    parts: Any = ()
    if isinstance(value, Mapping):
        parts = value.items()
    elif isinstance(value, list | tuple):
        parts = enumerate(value)
    for name, part in parts:
        found += _free_within(f"{key}.{name}".lstrip("."), part)
    return found


def _free(key: str, name: str) -> set[str]:
    """Arguments of the component of that name at that key. Where the key does not tell of which kind it is, those of
    whatever is installed under the name, without what one of them computes with."""
    told = registry_at(key)
    asked: Iterable[Registry[Any]] = registries() if told is None else [told]
    free: set[str] = set()
    fixed: set[str] = set()
    for registry in asked:
        if name in registry.names():
            with suppress(PluginError):  # whoever builds it says what is wrong
                cls: Any = registry.load(name)
                its = set(getattr(cls, "free_on_resume", ()))
                free |= its
                fixed |= {item.name for item in fields(cls.Config)} - its
    return free - fixed
