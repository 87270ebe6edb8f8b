"""What a name may stand for: components, hooks, commands and presets, everything that entry points bring."""

from __future__ import annotations

import ast
import dataclasses
import difflib
import importlib
from pathlib import Path
from typing import Any

from gymnast_core.config.presets import presets
from gymnast_core.errors import ConfigError, PluginError, shortened, unknown_name
from gymnast_core.plugins import discovery
from gymnast_core.plugins.elsewhere import where_from
from gymnast_core.plugins.registry import registries
from gymnast_listing.inventory import COMMANDS, HOOKS, PRESETS, installed

PRESET = "preset"
OWN_COMMANDS = ("train",)


def names() -> dict[str, list[str]]:
    """Everything that has a name, by kind as it is typed: "reward-model", "hooks", "command", "preset", …"""
    found = {PRESET: sorted({preset.name for preset in presets()})}
    found |= {registry.kind.replace(" ", "-"): registry.names() for registry in registries()}
    components = {registry.group for registry in registries()}
    found |= {"hooks": sorted(discovery.sources(HOOKS))}
    found |= {"command": sorted({*OWN_COMMANDS, *discovery.sources(COMMANDS)})}
    groups = installed()
    for group in sorted(groups.keys() - components - {HOOKS, COMMANDS, PRESETS}):
        found[_kind_of_group(group)] = sorted(groups[group])
    return found


def find(kind: str | None, name: str) -> list[str]:
    """The kinds that have that name. Raises `ConfigError` for an unknown kind, `PluginError` for an unknown name."""
    known = names()
    if kind is not None and kind not in known:
        raise ConfigError(unknown_name("kind", kind, known))
    found = [key for key in ([kind] if kind else known) if name in known[key]]
    if not found and kind:
        raise PluginError(unknown_name(kind.replace("-", " "), name, known[kind], _elsewhere(name, kind)))
    if not found and (elsewhere := _elsewhere(name)):
        raise PluginError(f"No plugin, preset, file or run {name!r}. {elsewhere}")
    if not found:
        # All names of all kinds are too many to read.
        everything = {item for items in known.values() for item in items}
        near = difflib.get_close_matches(name, everything, n=3, cutoff=0.5)
        hint = f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
        raise PluginError(
            f"No plugin, preset, file or run {shortened(name, 80)!r}.{hint} `gymnast plugins` and `gymnast presets` "
            "list what is installed."
        )
    return found


def _elsewhere(name: str, kind: str | None = None) -> str:
    """The package that brings a name of that kind, or of any, and is not installed; "" where none is known."""
    groups = {registry.kind.replace(" ", "-"): registry.group for registry in registries()}
    groups |= {"hooks": HOOKS, "command": COMMANDS, PRESET: PRESETS}
    wanted = groups.values() if kind is None else [groups[kind]] if kind in groups else []
    return next((found for group in wanted if (found := where_from(group, name))), "")


def group_of(kind: str) -> str:
    """The entry-point group of a kind that is neither a component nor a preset."""
    return {"hooks": HOOKS, "command": COMMANDS}.get(kind) or next(
        group for group in installed() if _kind_of_group(group) == kind
    )


def schema_of(command: str) -> Any:
    """The dataclass of what a command is told, from the package of the command; None of one that takes no config."""
    if command == "train":
        from gymnast_core.config import RunConfig

        return RunConfig
    for source in discovery.sources(COMMANDS).get(command, []):
        package = source.module.partition(".")[0]
        spec = discovery.locate(package)
        for folder in (spec and spec.submodule_search_locations) or []:
            for path in sorted(Path(folder).glob("*.py")):
                if (found := _schema_in(path, f"{package}.{path.stem}", command)) is not None:
                    return found
    return None


def _schema_in(path: Path, module: str, kind: str) -> Any:
    text = path.read_text(encoding="utf-8")
    if f'kind: ClassVar[str] = "{kind}"' not in text:
        return None
    loaded = importlib.import_module(module)
    classes = [getattr(loaded, node.name) for node in ast.parse(text).body if isinstance(node, ast.ClassDef)]
    return next((cls for cls in classes if dataclasses.is_dataclass(cls) and vars(cls).get("kind") == kind), None)


def _kind_of_group(group: str) -> str:
    """ "image-editor" of "gymnast.image_editors"."""
    return group.removeprefix("gymnast.").replace("_", "-").removesuffix("s")
