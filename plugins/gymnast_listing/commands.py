"""The commands `gymnast plugins` and `gymnast presets`."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click


@click.command()
@click.option("--load", is_flag=True, help="Import every plugin and show the tracebacks of those that fail.")
def plugins(load: bool) -> None:
    """Installed plugins, without importing them: what they are called, where they come from, what is wrong with them.

    With --load each is imported, so that a missing dependency shows, too, with the pip command that helps.
    """
    from gymnast_listing.advice import advice
    from gymnast_listing.inventory import inventory

    infos = inventory(load)
    rows = []
    for info in infos:
        origins = ", ".join(f"{source.distribution} {source.version or ''}".rstrip() for source in info.sources)
        targets = ", ".join(source.target for source in info.sources)
        rows.append((info.kind, info.name, origins, targets, "broken" if info.error else "ok"))
    _print_table(("kind", "name", "from", "class", "state"), rows)
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
