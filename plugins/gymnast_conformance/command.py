"""The command `gymnast check`."""

from __future__ import annotations

import importlib.metadata
import inspect
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gymnast_core.closing import closing
from gymnast_core.errors import ConfigError, DataError, GymnastError, PluginError, unknown_name
from gymnast_core.plugins import discovery
from gymnast_core.plugins.elsewhere import where_from

if TYPE_CHECKING:
    from gymnast_core.interfaces import Parts
    from gymnast_core.plugins.registry import Registry

HOOKS = "hooks"
HOOKS_GROUP = "gymnast.hooks"


@click.command()
@click.argument("arguments", nargs=-1, required=True, metavar="[KIND] NAME [KEY=VALUE]...")
@click.option("--tasks", "dataset", metavar="DATASET", help="Check with the first tasks of this dataset plugin.")
@click.option("--world", metavar="WORLD-MODEL", help="Give reward models this world model to ask.")
@click.option("--image-size", type=int, metavar="PIXELS", help="Side of the images made where there are no tasks.")
@click.option("--action-dim", type=int, metavar="A", help="Width of the actions for world and reward models.")
@click.option("--device", metavar="DEVICE", help="Where a policy is put first, e.g. cuda; world models have arguments.")
@click.option(
    "--sampled", is_flag=True, help="A judge's answers are samples: do not compare calls, and ask less often."
)
def check(
    arguments: tuple[str, ...], dataset: str | None, world: str | None, image_size: int | None,
    action_dim: int | None, device: str | None, sampled: bool,
) -> None:  # fmt: skip
    """Build a plugin with the given arguments and run the contract checks of its kind.

    KIND is world-model, policy, reward-model, optimizer, dataset or hooks; without it everything of that NAME is
    checked. With --tasks, `tasks.KEY=VALUE` is an argument of that dataset, and with --world `world.KEY=VALUE` one of
    that world model; without it, a reward model that asks the world is given one in which nothing moves. A reward
    model judges some 60 made-up rollouts (with --sampled, half as many), which a paid one bills. Keys may also be typed
    as configs have them: reward_model.args.KEY=VALUE, tasks.args.KEY=VALUE. The first clause that is broken ends the
    check: what was expected, what came, where it is written.

    \b
        gymnast check grpo group_size=4
        gymnast check dataset tabletop count=10
        gymnast check reward-model success-classifier checkpoint=FOLDER --tasks trials tasks.path=trials
        gymnast check reward-model my-reward --world worldgym world.checkpoint=FOLDER --tasks trials tasks.path=trials
    """
    from gymnast_core.plugins.places import arguments_of

    kind, name, given = _parse(arguments)
    overrides, of_tasks = _sorted_out(given, "tasks.", dataset)
    overrides, of_world = _sorted_out(overrides, "world.", world)
    found = _find(kind, name)
    components = [registry for registry in found if registry is not None]
    if overrides and len(components) != 1:
        which = " or ".join(registry.kind.replace(" ", "-") for registry in components)
        hint = f"say for which: gymnast check {which} {name}" if components else "hooks take none"
        raise ConfigError(f"{overrides[0]!r} is an argument of one component; {hint}.")
    chosen: dict[str, Any] = {"image_size": image_size, "action_dim": action_dim, "device": device}
    options = {key: value for key, value in chosen.items() if value is not None} | _tasks(dataset, of_tasks)
    options |= {"deterministic": False} if sampled else {}
    if world is not None and not any(registry.kind == "reward model" for registry in components):
        raise ConfigError("--world is for reward models, which may ask a world model; leave it out.")
    for registry in found:
        if registry is None:
            _report(HOOKS, name, _hooks(name), {})
            continue
        with ExitStack() as opened:
            component = opened.enter_context(closing(registry.build(name, arguments_of(registry, name, overrides))))
            if world is not None and registry.kind == "reward model":
                options["parts"] = _parts(world, of_world, options, opened)
            _report(registry.kind, name, component, options)


def _report(kind: str, name: str, plugin: Any, options: dict[str, Any]) -> None:
    from gymnast_core import testing

    try:
        checker = testing.CHECKS[kind]
        accepted = inspect.signature(checker).parameters
        lines = checker(plugin, **{key: options[key] for key in accepted if key in options})
    except GymnastError:
        raise
    except Exception as error:
        from gymnast_core.testing.contract import describe

        raise PluginError(f"The {kind} {name!r} failed while it was checked: {describe(error)}.") from error
    for line in lines:
        click.echo(f"--  {line}" if line.startswith("not shown") else f"ok  {line}")
    verb = "keep their" if kind == HOOKS else "keeps its"
    click.echo(f"The {kind} {name!r} {verb} contract.")


def _parse(arguments: Sequence[str]) -> tuple[str | None, str, list[str]]:
    """Kind, name, overrides."""
    from gymnast_core.config import split_arguments

    names, overrides = split_arguments(arguments)
    if len(names) not in (1, 2):
        raise ConfigError(
            f"Name one plugin, not {len(names)}: gymnast check [KIND] NAME [KEY=VALUE]. `gymnast plugins` lists them."
        )
    return (names[0] if len(names) == 2 else None), names[-1], overrides


def _find(kind: str | None, name: str) -> list[Registry[Any] | None]:
    """The registries that the plugin is in; None stands for hooks."""
    from gymnast_core.plugins.registry import registries

    known = {registry.kind.replace(" ", "-"): registry for registry in registries()}
    names = {key: registry.names() for key, registry in known.items()} | {HOOKS: list(discovery.sources(HOOKS_GROUP))}
    if kind is not None and kind not in names:
        raise ConfigError(unknown_name("kind of plugin", kind, names))
    found = [key for key in ([kind] if kind else names) if name in names[key]]
    if not found:
        candidates = names[kind] if kind else {item for items in names.values() for item in items}
        what = kind.replace("-", " ") if kind else "plugin that can be checked"
        groups = [HOOKS_GROUP if key == HOOKS else known[key].group for key in ([kind] if kind else names)]
        elsewhere = next(filter(None, (where_from(group, name) for group in groups)), "")
        unknown = unknown_name(what, name, candidates, _not_installed(name) or elsewhere)
        raise PluginError(f"{unknown} See `gymnast plugins`.")
    return [known.get(key) for key in found]


def _not_installed(name: str) -> str:
    """What to say of a plugin whose package lies here, as `gymnast new` writes it."""
    folder = Path(f"gymnast-{name.removeprefix('gymnast-')}")
    if not (folder / "pyproject.toml").is_file():
        return ""
    try:
        importlib.metadata.version(folder.name)
    except importlib.metadata.PackageNotFoundError:
        return f"./{folder} is here and not installed: pip install -e {folder}."
    return ""


def _hooks(name: str) -> Any:
    from gymnast_core.plugins.hooks import plugin_manager

    if refused := plugin_manager().broken.get(name):
        raise refused
    return plugin_manager().get_plugin(name)


def _sorted_out(given: Sequence[str], prefix: str, beside: str | None) -> tuple[list[str], list[str]]:
    """Arguments of the plugin, and those of the one that was named beside it, if there is one."""
    if beside is None:
        return list(given), []
    theirs = [text for text in given if text.startswith(prefix)]
    return [text for text in given if text not in theirs], [text.removeprefix(prefix) for text in theirs]


def _parts(world: str, overrides: Sequence[str], options: dict[str, Any], opened: ExitStack) -> Parts:
    """What a reward model is shown of a run: a world model, which is closed with `opened`, and the tasks."""
    from gymnast_core.interfaces import Parts
    from gymnast_core.plugins.places import arguments_of
    from gymnast_core.plugins.registry import registries

    known = registries().world_models
    built = known.build(world, arguments_of(known, world, overrides), key="world")
    return Parts(world_model=opened.enter_context(closing(built)), tasks=options.get("tasks", ()))


def _tasks(dataset: str | None, overrides: Sequence[str]) -> dict[str, Any]:
    from gymnast_core.plugins.places import arguments_of
    from gymnast_core.plugins.registry import registries

    if dataset is None:
        return {}
    known = registries().datasets
    tasks = known.build(dataset, arguments_of(known, dataset, overrides), key="tasks").tasks()
    if not len(tasks):
        raise DataError(f"The dataset {dataset!r} holds no tasks to check with.")
    return {"tasks": [tasks[i] for i in range(min(3, len(tasks)))]}
