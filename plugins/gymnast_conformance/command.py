"""The command `gymnast check`."""

from __future__ import annotations

import inspect
from typing import Any

import click

from gymnast_core.errors import PluginError, unknown_name


@click.command()
@click.argument("name")
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--tasks", "dataset", metavar="DATASET", help="Check with the first tasks of this dataset plugin.")
@click.option("--image-size", type=int, metavar="PIXELS", help="Side of the images made where there are no tasks.")
@click.option("--action-dim", type=int, metavar="A", help="Width of the actions for world and reward models.")
def check(
    name: str,
    overrides: tuple[str, ...],
    dataset: str | None,
    image_size: int | None,
    action_dim: int | None,
) -> None:
    """Build a plugin with the given arguments and run the contract checks of its kind."""
    from gymnast_core.config import parse_overrides
    from gymnast_core.registry import registries

    checkable = [registry for registry in registries() if registry.kind != "dataset"]
    found = [registry for registry in checkable if name in registry.names()]
    if not found:
        known = {item for registry in checkable for item in registry.names()}
        raise PluginError(unknown_name("checkable plugin", name, known))
    sizes: dict[str, Any] = {"image_size": image_size, "action_dim": action_dim}
    options = {key: value for key, value in sizes.items() if value is not None}
    if dataset is not None:
        tasks = registries().datasets.build(dataset, key="tasks").tasks()
        options["tasks"] = [tasks[i] for i in range(min(3, len(tasks)))]
    for registry in found:
        component = registry.build(name, parse_overrides(overrides))
        from gymnast_core import testing

        checker = testing.find_check(registry.kind)
        accepted = inspect.signature(checker).parameters
        for line in checker(component, **{key: options[key] for key in accepted if key in options}):
            click.echo(f"ok  {line}")
        click.echo(f"The {registry.kind} {name!r} keeps its contract.")
