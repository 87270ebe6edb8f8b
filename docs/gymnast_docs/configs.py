"""Config dataclasses as tables: every key with its type, default and meaning."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import json
import types
import typing
from dataclasses import dataclass
from typing import Any

from gymnast_core.config import ComponentConfig
from gymnast_core.plugins import discovery
from gymnast_docs.installed import modules, ours
from gymnast_docs.markdown import inline, narrowing_table, prose
from gymnast_docs.source import field_docs

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
    default: str
    doc: str


def keys(cls: Any, prefix: str = "") -> list[Key]:
    """Every key of a dataclass; those of dataclasses inside it follow it, dotted. A component's own are not opened."""
    hints, docs, found = typing.get_type_hints(cls), field_docs(cls), []
    for field in dataclasses.fields(cls):
        if not field.init:
            continue
        hint, name = hints[field.name], prefix + field.name
        inner, is_list = _dataclass_in(hint)
        doc = docs.get(field.name) or COMMON.get(field.name) or (_first_line(inner) if inner else "")
        opened = inner is not None and inner is not ComponentConfig
        shown = _default(field) if not opened or is_list or field.default is None else ""
        found.append(Key(name, type_name(hint), shown, doc))
        if opened:
            found += keys(inner, f"{name}[]." if is_list else f"{name}.")
    return found


def config_table(cls: Any) -> str:
    """All keys of a config."""
    rows = [(f"`{key.name}`", f"`{key.type}`", _shown(key.default), inline(key.doc)) for key in keys(cls)]
    if not rows:
        return "It takes no arguments."
    return narrowing_table(("Key", "Type", "Default", "Meaning"), rows)


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
    # As YAML and overrides have it.
    return json.dumps(value, ensure_ascii=False)


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
