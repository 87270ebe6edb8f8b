"""Config dataclasses as tables: every key with its type, default and meaning."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import json
import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnast_tabletop
from gymnast_core.config import ComponentConfig, ranges
from gymnast_core.plugins import discovery
from gymnast_core.plugins.registry import Registry, registries
from gymnast_docs.installed import modules, ours
from gymnast_docs.markdown import inline, narrowing_table, prose
from gymnast_docs.source import field_docs

REQUIRED = "required"
PLUGINS = Path(gymnast_tabletop.__file__).parents[1]
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


def config_table(cls: Any, presets: Mapping[str, Mapping[str, Any]] | None = None) -> str:
    """All keys of a config; `presets` are other defaults by the name that chooses them."""
    rows = []
    for key in keys(cls):
        others = [
            f"{name}: `{_plain(values[key.name])}`" for name, values in (presets or {}).items() if key.name in values
        ]
        default = "; ".join([_shown(key.default), *others])
        rows.append((f"`{key.name}`", f"`{key.type}`", inline(key.allowed), default, inline(key.doc)))
    if not rows:
        return "It takes no arguments."
    return narrowing_table(("Key", "Type", "Allowed", "Default", "Meaning"), rows)


def resolved_table(config: Any) -> str:
    """Every key of a command's config with the value that it has, those of its components included."""
    rows = [(f"`{name}`", f"`{_plain(value)}`") for name, value in _resolved(config, "")]
    return narrowing_table(("Key", "Value"), rows)


def _resolved(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, ComponentConfig):
        yield path, value.name
        schema = _component(path, value)
        yield from _resolved(schema, f"{path}.args") if schema is not None else ((f"{path}.args", value.args),)
    elif dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            yield from _resolved(getattr(value, field.name), f"{path}.{field.name}".lstrip("."))
    elif isinstance(value, dict) and any(isinstance(part, ComponentConfig) for part in value.values()):
        for name, part in value.items():
            yield from _resolved(part, f"{path}.{name}")
    else:
        yield path, value


def _component(path: str, part: ComponentConfig) -> Any:
    """A component's `Config` with its defaults filled in, from the one kind that has the name and takes the keys."""
    for registry in registries():
        if part.name in registry.names() and _is_of_kind(path, registry):
            return registry.configure(part.name, part.args, key=path)
    return None


def _is_of_kind(path: str, registry: Registry[Any]) -> bool:
    words = {
        "world model": ("world",),
        "policy": ("polic",),
        "reward model": ("reward", "judge"),
        "optimizer": ("optim",),
    }
    place = path.lower()
    for kind, starts in words.items():
        if any(start in place for start in starts):
            return registry.kind == kind
    return registry.kind == "dataset"


def schemas() -> dict[str, Any]:
    """What commands are told: every dataclass with `kind: ClassVar[str] = "..."` of our modules, by that kind."""
    found = {}
    for name, path in modules().items():
        text = path.read_text(encoding="utf-8")
        if "kind: ClassVar[str] = " not in text:
            continue
        module = importlib.import_module(name)
        for node in ast.parse(text).body:
            cls: Any = getattr(module, node.name) if isinstance(node, ast.ClassDef) else None
            if dataclasses.is_dataclass(cls) and isinstance(vars(cls).get("kind"), str):
                found[vars(cls)["kind"]] = cls
    return found


def hook_schemas() -> dict[str, Any]:
    """What hook plugins are told: the dataclass `Config` of each module that has one, by its section of a config."""
    found = {name: getattr(discovery.load(source), "Config", None) for name, source in ours("gymnast.hooks").items()}
    return {f"hooks.{name}": cls for name, cls in found.items() if dataclasses.is_dataclass(cls)}


def schemas_page() -> str:
    """Page `configs`: what each command is told."""
    parts = [
        "# Configs",
        "The keys of a YAML file or preset, and of `key=value` overrides. A component (`ComponentConfig`) is "
        "`{name: ..., args: {...}}`, or its bare name; its `args` are on the page of its kind.",
    ]
    for kind, cls in schemas().items():
        parts += [f"## {kind} {{ #{kind} }}", prose(cls.__doc__ or ""), config_table(cls)]
    for section, cls in hook_schemas().items():
        anchor = section.replace(".", "-")
        parts += [f"## {section} {{ #{anchor} }}", prose(cls.__doc__ or ""), config_table(cls)]
    return "\n\n".join(parts) + "\n"


def type_name(hint: Any) -> str:
    """A type as people write it, without modules."""
    if hint is type(None):
        return "None"
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        return " | ".join(type_name(part) for part in typing.get_args(hint))
    if origin := typing.get_origin(hint):
        return f"{origin.__name__}[{', '.join(type_name(part) for part in typing.get_args(hint))}]"
    return getattr(hint, "__name__", str(hint))


def _default(field: dataclasses.Field[Any]) -> str:
    if field.default is not dataclasses.MISSING:
        value: Any = field.default
    elif field.default_factory is not dataclasses.MISSING:
        value = field.default_factory()
    else:
        return REQUIRED
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {name: part for name, part in dataclasses.asdict(value).items() if part not in ({}, None)}
    return _plain(value)


def _plain(value: Any) -> str:
    # As YAML and overrides have it; a path of this machine is one below the installed package.
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text.replace(f"{PLUGINS}/", "…/").replace("|", "\\|")


def _shown(default: str) -> str:
    return default if default in ("", REQUIRED) else f"`{default}`"


def _dataclass_in(hint: Any) -> tuple[Any, bool]:
    """The dataclass in "X", "X | None" or "list[X]", and whether it is the last."""
    parts = [part for part in typing.get_args(hint) or (hint,) if part is not type(None)]
    is_list = typing.get_origin(hint) is list
    is_dict = typing.get_origin(hint) is dict
    return (parts[0] if not is_dict and dataclasses.is_dataclass(parts[0]) else None), is_list


def _first_line(cls: Any) -> str:
    written = cls.__doc__ and not cls.__doc__.startswith(f"{cls.__name__}(")
    return cls.__doc__.split("\n\n")[0] if written else ""
