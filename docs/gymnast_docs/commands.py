"""Pages of the command line: every command's help, every preset."""

from __future__ import annotations

from collections.abc import Iterator

import click

from gymnast_core.cli import cli
from gymnast_core.config import load_config
from gymnast_core.config.presets import Preset, presets
from gymnast_docs.configs import resolved_table, schemas
from gymnast_docs.installed import DISTRIBUTION, ours
from gymnast_docs.markdown import anchor, code, inline, table

WIDTH = 100


def commands() -> Iterator[tuple[str, str]]:
    """Each command that this distribution brings ("golden record") with its help, subcommands after their group."""
    root = click.Context(cli, info_name="gymnast", terminal_width=WIDTH, **cli.context_settings)
    known = {*cli.commands, *ours("gymnast.commands")}
    for name in sorted(known):
        command = cli.get_command(root, name)
        if command is not None:
            yield from _with_subcommands(command, name, click.Context(command, parent=root, info_name=name), name)


def _with_subcommands(
    command: click.Command, name: str, context: click.Context, path: str
) -> Iterator[tuple[str, str]]:
    yield path, command.get_help(context)
    group = command if isinstance(command, click.Group) else click.Group()
    for child in group.list_commands(context):
        found = group.get_command(context, child)
        if found is not None:
            inner = click.Context(found, parent=context, info_name=child)
            yield from _with_subcommands(found, child, inner, f"{path} {child}")


def commands_page() -> str:
    """Page `commands`."""
    parts = [
        "# Commands",
        "What `gymnast COMMAND --help` prints. A mistake in what you give ends a command with one message and exit "
        "code 2; Ctrl-C ends it with 130.",
    ]
    for name, text in commands():
        parts += [f"## gymnast {name}", code(text, "text")]
    return "\n\n".join(parts) + "\n"


def bundled_presets() -> list[Preset]:
    return [preset for preset in presets() if preset.distribution == DISTRIBUTION]


def presets_page() -> str:
    """Page `presets`."""
    found = bundled_presets()
    rows = [
        (f"[`{preset.name}`](#{anchor(preset.name)})", f"`gymnast {preset.kind}`", inline(preset.description))
        for preset in found
    ]
    parts = [
        "# Presets",
        "Configs that come with a plugin: `gymnast COMMAND PRESET KEY=VALUE`. Every key is on the page "
        "[Configs](configs.md). `${preset_dir}` is the folder of the file.",
        table(("Name", "For", "What it does"), rows),
    ]
    for preset in found:
        config = load_config(schemas()[preset.kind], preset.name)
        parts += [
            f"## {preset.name}",
            code(preset.path.read_text(encoding="utf-8"), "yaml"),
            "Every key with its value, defaults included; `null` in a component's `args` is settled when it is built, "
            "from its checkpoint.",
            resolved_table(config),
        ]
    return "\n\n".join(parts) + "\n"
