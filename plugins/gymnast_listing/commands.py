"""The commands `gymnast plugins`, `gymnast presets` and `gymnast show`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import click


@click.command()
@click.option("--load", is_flag=True, help="Import every plugin and show the tracebacks of those that fail.")
def plugins(load: bool) -> None:
    """Installed plugins, without importing them: what they are called, where they come from, what each is, what is
    wrong with them. `gymnast show NAME` says more of one.

    With --load each is imported, so that a missing dependency shows, too, with the pip command that helps.
    """
    from gymnast_listing.advice import advice
    from gymnast_listing.inventory import PRESETS, inventory
    from gymnast_listing.summaries import summary

    infos = inventory(load)
    rows = []
    for info in infos:
        origins = ", ".join(f"{source.distribution} {source.version or ''}".rstrip() for source in info.sources)
        targets = ", ".join(source.target for source in info.sources)
        meaning = "YAML files: see `gymnast presets`" if info.sources[0].group == PRESETS else summary(info.sources[0])
        rows.append((info.kind, info.name, origins, targets, meaning, "broken" if info.error else "ok"))
    _print_table(("kind", "name", "from", "class", "what it is", "state"), rows)
    for info in infos:
        if info.error:
            origins = " and ".join(map(str, info.sources))
            click.echo(f"\n{info.kind} {info.name} of {origins}:\n{info.error.rstrip()}")
            if command := advice(info.error, info.sources):
                click.echo(f"Try: {command}")


@click.command()
def presets() -> None:
    """Installed presets, for `gymnast train`, `gymnast fit` and `gymnast evaluate`."""
    from gymnast_core.config.presets import presets as installed

    rows = [(item.name, f"gymnast {item.kind}", item.distribution, item.description) for item in installed()]
    _print_table(("preset", "command", "from", "description"), rows)


@click.command()
@click.argument("arguments", nargs=-1, required=True, metavar="[KIND] NAME|FILE.yaml|RUN")
@click.option("--resolved", is_flag=True, help="A preset, file or run: every key with its value, defaults included.")
def show(arguments: tuple[str, ...], resolved: bool) -> None:
    """A preset's YAML, a plugin's arguments, a command's keys, or the config of a run.

    KIND is world-model, policy, reward-model, optimizer, dataset, engine, hooks, command or preset; without it
    everything of that NAME is shown. Arguments are listed with type, range, default and meaning.

    \b
    gymnast show tabletop --resolved
    gymnast show grpo
    gymnast show dataset tabletop
    """
    from gymnast_core.errors import ConfigError
    from gymnast_listing.explain import show as shown
    from gymnast_listing.explain import show_file
    from gymnast_listing.targets import find

    if len(arguments) > 2:
        raise ConfigError(f"Show one thing, not {len(arguments)}: gymnast show [KIND] NAME.")
    name, kind = arguments[-1], arguments[0] if len(arguments) == 2 else None
    path = Path(name)
    if kind is None and path.is_dir():
        if not (path / "config.yaml").is_file():
            raise ConfigError(f"{name} is not a run folder: it has no config.yaml. Give one that a run wrote.")
        click.echo(show_file(path / "config.yaml", "The config of a run", whole=resolved))
    elif kind is None and path.suffix in (".yaml", ".yml") and path.is_file():
        click.echo(show_file(path, "A config", whole=resolved))
    else:
        found = find(kind, name)
        if resolved and "preset" in found:
            found = ["preset"]
        if len(found) > 1:
            kinds = " and ".join([", ".join(found[:-1]), found[-1]])
            click.echo(f"{name!r} is the name of several: {kinds}. One of them alone: gymnast show {found[0]} {name}\n")
        click.echo("\n\n".join(shown(one, name, whole=resolved) for one in found))


def _print_table(columns: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    if not sys.stdout.isatty():
        # Tab-separated for pipes, where a terminal's width means nothing.
        for row in rows:
            click.echo("\t".join(row))
        return
    from rich.console import Console
    from rich.table import Column, Table
    from rich.text import Text

    table = Table(*(Column(name, overflow="fold") for name in columns))
    for row in rows:
        table.add_row(*(Text(cell, style="red" if cell == "broken" else "") for cell in row))
    Console().print(table)
