"""Everything that installed distributions bring, each with what is known against it."""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Sequence

import click

from gymnast_core import __version__
from gymnast_core.errors import PluginError
from gymnast_core.plugins import discovery
from gymnast_core.plugins.discovery import PluginSource
from gymnast_core.plugins.hooks import plugin_manager
from gymnast_core.plugins.registry import PluginInfo, registries
from gymnast_listing.advice import import_error, missing_module

HOOKS, COMMANDS, PRESETS, ENGINES = "gymnast.hooks", "gymnast.commands", "gymnast.presets", "gymnast.engines"
_KINDS = {COMMANDS: "command", PRESETS: "presets"}
_OWN = (PluginSource(ENGINES, "local", "gymnast_core.training.engine:LocalEngine", "gymnast", __version__),)
"""What the core brings without an entry point, beside its commands: told here, since asking it would import torch."""


def installed() -> dict[str, dict[str, list[PluginSource]]]:
    """Group -> name -> sources: of all entry points, and of what the core brings itself."""
    found = {group: {name: list(of) for name, of in names.items()} for group, names in discovery.installed().items()}
    for source in _OWN:
        found.setdefault(source.group, {}).setdefault(source.name, []).append(source)
    return found


def inventory(load: bool) -> list[PluginInfo]:
    """Components, hooks, commands, presets, and what plugins add for each other. `load` imports them all."""
    known = registries()
    for registry in known if load else ():
        for name in registry.names():
            with contextlib.suppress(PluginError):
                registry.load(name)
    infos = [info for registry in known for info in registry.describe()]
    groups = installed()
    for name, sources in sorted(groups.get(HOOKS, {}).items()):
        error = plugin_manager().broken.get(name) or plugin_manager().failed.get(name)
        infos.append(PluginInfo("hooks", name, tuple(sources), str(error) if error else None))
    components = [registry.group for registry in known]
    for group in sorted(groups.keys() - {HOOKS, *components}, key=lambda group: (group not in _KINDS, group)):
        for name, sources in sorted(groups[group].items()):
            fault = _fault(group, name, sources, [HOOKS, *_KINDS, *components], load)
            infos.append(PluginInfo(_KINDS.get(group, group), name, tuple(sources), fault))
    return infos


def _fault(group: str, name: str, sources: Sequence[PluginSource], known: Sequence[str], load: bool) -> str | None:
    if group not in known and (meant := difflib.get_close_matches(group, known, n=1, cutoff=0.85)):
        return f"Nothing reads the entry-point group {group!r}. Did you mean {meant[0]!r}?"
    if len(sources) > 1:
        return f"Two plugins bring {name!r}: {' and '.join(map(str, sources))}. Uninstall or rename one."
    if group == COMMANDS and _is_own_command(name):
        return f"{name!r} is a command of gymnast itself. Rename the plugin's."
    fault = missing_module(sources[0])
    if fault is None and load and group != PRESETS:
        fault = import_error(sources[0])
        if fault is None and group == COMMANDS and not isinstance(discovery.load(sources[0]), click.Command):
            fault = f"{sources[0].target} is not a click command."
    return fault


def _is_own_command(name: str) -> bool:
    from gymnast_core.cli import cli

    return name in cli.commands
