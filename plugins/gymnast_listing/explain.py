"""`gymnast show`: presets, plugins and runs as text."""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click
from omegaconf import OmegaConf

from gymnast_core.config import load_config
from gymnast_core.config.presets import find_preset
from gymnast_core.config.scalars import read_yaml
from gymnast_core.config.typed import literal
from gymnast_core.errors import ConfigError, GymnastError, PluginError
from gymnast_core.plugins import discovery
from gymnast_core.plugins.registry import Registry, registries
from gymnast_listing.inventory import installed
from gymnast_listing.keys import REQUIRED, Key, keys, plain, resolved
from gymnast_listing.targets import PRESET, group_of, schema_of

WIDTH = 100
_SETTLED = "in a component's arguments is settled when it is built: from its checkpoint, or as its line says."


def show_file(path: Path, what: str, *, whole: bool) -> str:
    """A YAML config with its comments, or `whole`: every key with the value that it has, defaults included.

    Raises `ConfigError` for a file that is no config, `PluginError` for a component that is not installed.
    """
    if not whole:
        return f"# {what}: {path}\n{path.read_text(encoding='utf-8').rstrip()}"
    values = read_yaml(path.read_text(encoding="utf-8-sig"))
    kind = values.get("kind", "train") if isinstance(values, dict) else "train"
    schema = schema_of(str(kind))
    if schema is None:
        raise ConfigError(f"{path} is a config of `gymnast {kind}`, which is not installed here.")
    config = resolved(load_config(schema, str(path)))
    note = textwrap.fill(f"null {_SETTLED}", WIDTH, initial_indent="# ", subsequent_indent="# ")
    text = OmegaConf.to_yaml(OmegaConf.create({"kind": kind, **literal(config)}))
    return f"# {what}: {path}\n# Every key with its value, defaults included.\n{note}\n{text.rstrip()}"


def show(kind: str, name: str, *, whole: bool) -> str:
    """What a name of a kind is. Raises as `show_file`, and `PluginError` for a plugin that cannot be imported."""
    if kind == PRESET:
        preset = find_preset(name)
        return show_file(preset.path, f"The preset {name!r} of `gymnast {preset.kind}`", whole=whole)
    if kind == "command":
        return _command(name)
    registry = next((known for known in registries() if known.kind.replace(" ", "-") == kind), None)
    return _entry(kind, name) if registry is None else _component(registry, name)


def _component(registry: Registry[Any], name: str) -> str:
    cls: Any = registry.load(name)
    source = registry.sources(name)[0]
    key = registry.kind.replace(" ", "_")
    place = f"{key}.args.KEY=VALUE" if registry.kind != "dataset" else "tasks.args.KEY=VALUE, or where it stands"
    parts = [f"The {registry.kind} {name!r} of {source}", _prose(cls.__doc__), *_arguments(cls.Config, place)]
    for preset, values in cls.presets().items():
        changed = ", ".join(f"{key}={plain(value)}" for key, value in values.items())
        parts.append(textwrap.fill(f"Defaults with {preset!r}: {changed}", WIDTH, subsequent_indent="  "))
    parts.append(f"Try it: gymnast check {registry.kind.replace(' ', '-')} {name} KEY=VALUE")
    return "\n\n".join(parts)


def _command(name: str) -> str:
    from gymnast_core.cli import cli

    root = click.Context(cli, info_name="gymnast", terminal_width=WIDTH, **cli.context_settings)
    command = cli.get_command(root, name)
    assert command is not None
    text = command.get_help(click.Context(command, parent=root, info_name=name))
    schema = schema_of(name)
    parts = [f"The command `gymnast {name}`", text]
    return "\n\n".join(parts if schema is None else [*parts, *_arguments(schema, "KEY=VALUE")])


def _entry(kind: str, name: str) -> str:
    """A plugin that is no component: hooks, or what plugins add for each other."""
    found = installed()[group_of(kind)][name]
    if len(found) > 1:
        raise PluginError(f"Two plugins are called {kind} {name!r}: {' and '.join(map(str, found))}.")
    try:
        target = discovery.load(found[0])
    except GymnastError:
        raise
    # Importing foreign code can raise anything, SystemExit included.
    except (Exception, SystemExit) as error:
        raise PluginError(
            f"The {kind} {name!r} of {found[0]} cannot be imported: {type(error).__name__}: {error}."
        ) from error
    parts = [f"The {kind} {name!r} of {found[0]}", _prose(target.__doc__)]
    if kind == "hooks":
        listens = [hook for hook in vars(target) if hook.startswith("gymnast_")]
        parts.append(textwrap.fill(f"Listens to: {', '.join(listens)}", WIDTH, subsequent_indent="  "))
    place = {"hooks": f"hooks.{name}.KEY=VALUE", "engine": "engine.args.KEY=VALUE"}.get(kind, "KEY: VALUE")
    config = getattr(target, "Config", None)
    return "\n\n".join(parts if config is None else [*parts, *_arguments(config, place)])


def _arguments(config: Any, place: str) -> Iterator[str]:
    found: Sequence[Key] = keys(config)
    if not found:
        yield "It takes no arguments."
        return
    yield f"Arguments ({place}):"
    yield "\n".join(line for key in found for line in _argument(key))
    if any(key.default == "null" and "args" in place for key in found):
        yield textwrap.fill(f"`null` {_SETTLED}", WIDTH)


def _argument(key: Key) -> Iterator[str]:
    kind = f"{key.type}, {key.allowed}" if key.allowed else key.type
    default = {REQUIRED: REQUIRED, "": "a section"}.get(key.default, f"default {key.default}")
    yield f"  {key.name}   {kind}   {default}"
    yield from textwrap.wrap(key.doc, WIDTH, initial_indent="      ", subsequent_indent="      ")


def _prose(docstring: str | None) -> str:
    return inspect.cleandoc(docstring or "It has no docstring.")
