"""docs/stability.md promises what exists, and all of what plugins are written against."""

import inspect
import pkgutil
import re
from pathlib import Path

import pytest

import gymnast_core
from gymnast_core import errors, interfaces, learning, testing, types
from gymnast_core.cli import cli
from gymnast_core.plugins import events, hookspecs
from gymnast_core.plugins.hooks import HookManager
from gymnast_core.plugins.registry import registries
from gymnast_core.processes import Processes

PAGE = (Path(gymnast_core.__file__).parents[1] / "docs" / "stability.md").read_text()
NAMES = sorted(set(re.findall(r"`(gymnast_core(?:\.\w+)+)`", PAGE)))


@pytest.mark.parametrize("name", NAMES)
def test_every_name_that_is_promised_exists(name: str) -> None:
    try:
        found = pkgutil.resolve_name(name)
    except (ImportError, AttributeError) as error:
        pytest.fail(f"{name} is promised, but {error}")
    assert found is not None


def test_the_contracts_types_errors_checks_and_hooks_are_all_promised() -> None:
    public = set()
    for module in (interfaces, types, learning, errors, events):
        public |= {
            f"{module.__name__}.{n}" for n, c in inspect.getmembers(module, inspect.isclass) if _is_of(c, module)
        }
    public |= {f"{hookspecs.__name__}.{name}" for name in dir(hookspecs) if name.startswith("gymnast_")}
    public |= {f"{testing.__name__}.{name}" for name in dir(testing) if name.startswith("check_")}
    assert public <= set(NAMES)


def test_the_groups_and_commands_exist() -> None:
    groups = set(re.findall(r"`(gymnast\.\w+)`", PAGE))
    assert {registry.group for registry in registries()} <= groups
    # Groups that are not stable may belong to a plugin.
    folders = [Path(gymnast_core.__file__).parent, Path(gymnast_core.__file__).parents[1] / "plugins"]
    sources = "".join(path.read_text() for folder in folders for path in folder.rglob("*.py"))
    named = {group: (f'"{group}"', f'"{group.removeprefix("gymnast.")}"') for group in groups}
    assert all(any(name in sources for name in names) for names in named.values())
    commands = set(re.findall(r"`gymnast (\w+)`", PAGE))
    assert {"train", "check", "new"} <= commands <= set(cli.list_commands(None))  # type: ignore[arg-type]


def test_the_methods_of_a_registry_are_those_promised() -> None:
    promised = re.search(r"registry\.Registry`, its ([^\n]+)", PAGE)
    assert promised
    names = re.findall(r"`(\w+)`", promised.group(1))
    public = [name for name, _ in inspect.getmembers(registries().policies, callable) if not name.startswith("_")]
    assert sorted(names) == sorted(public)


def test_the_methods_of_the_processes_exist() -> None:
    promised = re.search(r"Processes`, its (.+?)\.\n\n", PAGE, flags=re.DOTALL)
    assert promised
    assert set(re.findall(r"`(\w+)`", promised.group(1))) <= set(dir(Processes))


def test_an_implementation_of_a_deprecated_hook_is_warned_and_still_called() -> None:
    import pluggy

    class Specifications:
        @pluggy.HookspecMarker("gymnast")(warn_on_impl=DeprecationWarning("gymnast_old is now gymnast_new"))
        def gymnast_old(self, event: int) -> None:
            """What it was."""

    class Plugin:
        def gymnast_old(self, event: int) -> int:
            return event

    manager = HookManager()
    manager.add_hookspecs(Specifications())
    with pytest.warns(DeprecationWarning, match="gymnast_old is now gymnast_new"):
        manager.add(Plugin(), "late")
    assert manager.hook.gymnast_old(event=3) == [3]


def _is_of(item: type, module: object) -> bool:
    return inspect.getmodule(item) is module
