"""The keys of a config dataclass, with what its source says of them: type, allowed values, default, meaning."""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from gymnast_core.config import ComponentConfig, ranges
from gymnast_core.plugins.places import registry_at
from gymnast_listing.source import field_docs

REQUIRED = "required"
COMMON = {
    "seed": "Seed of everything random in the run.",
    "world_model": "The world model.",
    "policy": "The policy.",
    "reward_model": "The reward model.",
    "optimizer": "The reinforcement-learning algorithm.",
    "tasks": "Dataset of the tasks that rollouts start from.",
    "episodes": "Dataset of recorded episodes.",
    "world": "The world of the rollouts.",
}
"""What keys mean that several configs share; a field's own docstring goes before."""


@dataclass(frozen=True)
class Key:
    """One key of a config, in dotted notation."""

    name: str
    type: str
    allowed: str
    """What the values may be, beyond their type; "" where anything may be."""
    default: str
    """As JSON; `REQUIRED` without one, "" of a section, whose keys follow."""
    doc: str


def keys(cls: Any, prefix: str = "") -> list[Key]:
    """Every key of a dataclass; those of dataclasses inside it follow it, dotted. A component's own are not opened."""
    hints, declared, docs = typing.get_type_hints(cls), ranges.hints(cls), field_docs(cls)
    found = []
    for field in dataclasses.fields(cls):
        if not field.init:
            continue
        hint, name = hints[field.name], prefix + field.name
        inner, is_list = _dataclass_in(hint)
        doc = docs.get(field.name) or COMMON.get(field.name) or (_first_line(inner) if inner else "")
        opened = inner is not None and inner is not ComponentConfig
        shown = _default(field) if not opened or is_list or field.default is None else ""
        found.append(Key(name, type_name(hint), allowed(declared[field.name]), shown, doc))
        if opened:
            found += keys(inner, f"{name}[]." if is_list else f"{name}.")
    return found


def allowed(hint: Any) -> str:
    """What the values of a field may be, in words, as its range or choices say; "" where any value of its type may."""
    declared, inner = ranges.declaration(hint), ranges.element(hint)
    if declared is None and inner is not None:
        each = allowed(inner)
        return each and f"each {each}"
    return "" if declared is None else str(declared)


def resolved(config: Any) -> dict[str, Any]:
    """A command's config as nested plain values, with the defaults of its components' arguments filled in.

    Raises `ConfigError` for arguments that do not fit, `PluginError` for a component that is not installed.
    """
    return {name: _resolved(getattr(config, name), name) for name in _names(config)}


def flat(values: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every value of nested dicts by its dotted key; a component's name stands under its own key."""
    if not isinstance(values, dict) or not values:
        yield path, values
        return
    is_component = values.keys() == {"name", "args"}
    for name, value in values.items():
        yield from flat(value, path if is_component and name == "name" else f"{path}.{name}".lstrip("."))


def type_name(hint: Any) -> str:
    """A type as people write it, without modules."""
    if hint is type(None):
        return "None"
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        return " | ".join(type_name(part) for part in typing.get_args(hint))
    if origin := typing.get_origin(hint):
        return f"{origin.__name__}[{', '.join(type_name(part) for part in typing.get_args(hint))}]"
    return getattr(hint, "__name__", str(hint))


def plain(value: Any) -> str:
    """A value as YAML and overrides have it."""
    return json.dumps(value, ensure_ascii=False, default=str)


def _resolved(value: Any, path: str) -> Any:
    if isinstance(value, ComponentConfig):
        registry = registry_at(path)
        args = value.args if registry is None else registry.configure(value.name, value.args, key=path)
        return {"name": value.name, "args": _resolved(args, f"{path}.args")}
    if dataclasses.is_dataclass(value):
        return {name: _resolved(getattr(value, name), f"{path}.{name}") for name in _names(value)}
    if isinstance(value, dict):
        return {name: _resolved(part, f"{path}.{name}") for name, part in value.items()}
    if isinstance(value, list):
        return [_resolved(part, f"{path}[{i}]") for i, part in enumerate(value)]
    return value


def _names(value: Any) -> list[str]:
    return [field.name for field in dataclasses.fields(value) if field.init]


def _default(field: dataclasses.Field[Any]) -> str:
    if field.default is not dataclasses.MISSING:
        value: Any = field.default
    elif field.default_factory is not dataclasses.MISSING:
        value = field.default_factory()
    else:
        return REQUIRED
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {name: part for name, part in dataclasses.asdict(value).items() if part not in ({}, None)}
    return plain(value)


def _dataclass_in(hint: Any) -> tuple[Any, bool]:
    """The dataclass in "X", "X | None" or "list[X]", and whether it is the last."""
    parts = [part for part in typing.get_args(hint) or (hint,) if part is not type(None)]
    is_list = typing.get_origin(hint) is list
    is_dict = typing.get_origin(hint) is dict
    return (parts[0] if not is_dict and dataclasses.is_dataclass(parts[0]) else None), is_list


def _first_line(cls: Any) -> str:
    written = cls.__doc__ and not cls.__doc__.startswith(f"{cls.__name__}(")
    return cls.__doc__.split("\n\n")[0] if written else ""
