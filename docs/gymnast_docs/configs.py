"""Config dataclasses as tables: every key with its type, default and meaning."""

from __future__ import annotations

import ast
import dataclasses
import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gymnast_tabletop
from gymnast_core.plugins import discovery
from gymnast_docs.installed import modules, ours
from gymnast_docs.markdown import inline, narrowing_table, prose
from gymnast_listing.keys import REQUIRED, flat, keys, plain, resolved

PLUGINS = Path(gymnast_tabletop.__file__).parents[1]


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
    rows = [(f"`{name}`", f"`{_plain(value)}`") for name, value in flat(resolved(config))]
    return narrowing_table(("Key", "Value"), rows)


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


def _plain(value: Any) -> str:
    return _cell(plain(value))


def _cell(text: str) -> str:
    # A path of this machine is one below the installed package.
    return text.replace(f"{PLUGINS}/", "…/").replace("|", "\\|")


def _shown(default: str) -> str:
    return default if default in ("", REQUIRED) else f"`{_cell(default)}`"
