"""Everything that can be named is documented: hooks, commands, plugins, presets, config keys, stable names."""

from __future__ import annotations

import dataclasses
import inspect
import pkgutil
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_type_hints

import click
import pytest
import yaml

from gymnast_core import interfaces, learning, testing, types
from gymnast_core.cli import cli
from gymnast_core.config import ComponentConfig
from gymnast_core.plugins import events, hookspecs
from gymnast_core.plugins.discovery import PluginSource, load

ROOT = Path(__file__).parents[2]
GROUPS: dict[str, dict[str, str]] = {
    group: targets
    for group, targets in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"].items()
    if group.startswith("gymnast.")
}
KINDS = ("world_models", "policies", "reward_models", "optimizers", "datasets")
COMPONENTS = [(kind, name, target) for kind in KINDS for name, target in GROUPS[f"gymnast.{kind}"].items()]


def section(page: str, title: str) -> str:
    """What stands under a heading of level 2."""
    found = re.split(rf"^## {re.escape(title)}(?: {{.*}})?$", page, flags=re.MULTILINE)
    assert len(found) == 2, f"there is not one section {title!r}"
    return re.split(r"^## ", found[1], flags=re.MULTILINE)[0]


def rows(text: str) -> dict[str, str]:
    """Last cell of each table row by the first one."""
    cells = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| `")]
    return {line[0].strip("`"): re.sub(r"\s*\|$", "", line[-1]).strip() for line in cells}


def config_keys(cls: Any, prefix: str = "") -> Iterator[str]:
    for field in dataclasses.fields(cls):
        hint = get_type_hints(cls)[field.name]
        inner = [
            part for part in (hint, *get_args(hint)) if dataclasses.is_dataclass(part) and part is not ComponentConfig
        ]
        yield prefix + field.name
        if inner and not str(hint).startswith("dict"):
            brackets = "[]" if str(hint).startswith("list") else ""
            yield from config_keys(inner[0], f"{prefix}{field.name}{brackets}.")


@pytest.mark.parametrize("hook", [name for name in dir(hookspecs) if name.startswith("gymnast_")])
def test_every_hook_has_its_arguments_and_its_docstring(pages: dict[str, str], hook: str) -> None:
    text = section(pages["reference/hooks.md"], hook)
    function = getattr(hookspecs, hook)
    for argument in inspect.signature(function).parameters:
        assert re.search(rf"\b{argument}: ", text)
    words = " ".join((inspect.getdoc(function) or "").split())
    assert len(words) > 15 and words in re.sub(r"\\(.)", r"\1", text)


@pytest.mark.parametrize(
    "interface", ["WorldModel", "Policy", "RewardModel", "Optimizer", "Dataset", "Trainable", "Component"]
)
def test_every_method_of_a_contract_is_there(pages: dict[str, str], interface: str) -> None:
    text = section(pages["reference/contracts.md"], interface)
    own = [name for name in vars(getattr(interfaces, interface)) if not name.startswith("_") and name != "Config"]
    for name in own:
        assert f"### {name} " in text or f"| `{name}` |" in text, name


def test_every_field_of_the_data_types_is_there(pages: dict[str, str]) -> None:
    for page, module in {"types": types, "learning": learning, "hooks": events}.items():
        classes = [
            cls for cls in vars(module).values() if dataclasses.is_dataclass(cls) and cls.__module__ == module.__name__
        ]
        assert len(classes) >= 3
        for cls in classes:
            own = {
                field.name for field in dataclasses.fields(cls) if field.name in vars(cls).get("__annotations__", {})
            }
            found = rows(section(pages[f"reference/{page}.md"], cls.__name__)) if own else {}
            assert found.keys() >= own, cls


@pytest.mark.parametrize("kind", testing.CHECKS)
def test_every_check_has_its_options(pages: dict[str, str], kind: str) -> None:
    check = testing.CHECKS[kind]
    text = section(pages["reference/testing.md"], check.__name__)
    for option in inspect.signature(check).parameters:
        assert re.search(rf"\b{option}: ", text), option
    words = " ".join((inspect.getdoc(check) or "").split()[:12])
    assert words in re.sub(r"\\(.)", r"\1", " ".join(text.split()))


@pytest.mark.parametrize("name", ["train", *GROUPS["gymnast.commands"]])
def test_every_command_has_its_options(pages: dict[str, str], name: str) -> None:
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    text = section(pages["reference/commands.md"], f"gymnast {name}")
    for parameter in command.params:
        for option in parameter.opts if isinstance(parameter, click.Option) else ():
            assert option in text, option
    for child in command.commands if isinstance(command, click.Group) else ():
        assert f"## gymnast {name} {child}\n" in pages["reference/commands.md"]


def test_every_entry_point_is_listed(pages: dict[str, str]) -> None:
    for group, targets in GROUPS.items():
        listed = section(pages["reference/plugins.md"], group)
        for name, target in targets.items():
            assert f"`{name}`" in listed and f"`{target}`" in listed, name


def test_every_config_field_of_other_plugins_is_explained(pages: dict[str, str]) -> None:
    for group in GROUPS.keys() - {f"gymnast.{kind}" for kind in KINDS}:
        listed = section(pages["reference/plugins.md"], group)
        for name, target in GROUPS[group].items() if group != "gymnast.presets" else ():
            config = getattr(load(PluginSource(group, name, target, "gymnast", None)), "Config", None)
            if config is not None:
                found = rows(listed.split(f"Arguments of `{name}`:")[1].split("Arguments of")[0])
                assert list(found) == list(config_keys(config))
                assert [key for key, meaning in found.items() if not meaning] == []


@pytest.mark.parametrize(("kind", "name", "target"), COMPONENTS, ids=lambda part: part)
def test_every_config_field_of_a_plugin_is_explained(pages: dict[str, str], kind: str, name: str, target: str) -> None:
    cls = load(PluginSource(f"gymnast.{kind}", name, target, "gymnast", None))
    text = section(pages[f"reference/{kind.replace('_', '-')}.md"], name)
    found = rows(text)
    assert list(found) == list(config_keys(cls.Config))
    assert [key for key, meaning in found.items() if not meaning] == []


def test_every_key_that_a_command_takes_is_explained(pages: dict[str, str]) -> None:
    sources = [*ROOT.glob("gymnast_core/**/*.py"), *ROOT.glob("plugins/gymnast_*/*.py")]
    kinds = {kind for path in sources for kind in re.findall(r'kind: ClassVar\[str\] = "(\w+)"', path.read_text())}
    assert kinds >= {"train", "fit", "evaluate"}
    for kind in kinds:
        found = rows(section(pages["reference/configs.md"], kind))
        assert found and [key for key, meaning in found.items() if not meaning] == []


@pytest.mark.parametrize(("name", "module"), GROUPS["gymnast.hooks"].items())
def test_every_key_that_a_hook_plugin_takes_is_explained(pages: dict[str, str], name: str, module: str) -> None:
    cls = getattr(load(PluginSource("gymnast.hooks", name, module, "gymnast", None)), "Config", None)
    if cls is None:
        return
    found = rows(section(pages["reference/configs.md"], f"hooks.{name}"))
    assert list(found) == list(config_keys(cls)) and [key for key, meaning in found.items() if not meaning] == []


def test_every_preset_is_there(pages: dict[str, str]) -> None:
    files = list(ROOT.glob("plugins/*/presets/*.yaml"))
    assert files
    for file in files:
        assert file.read_text() in section(pages["reference/presets.md"], file.stem) + "\n"


def test_what_is_called_stable_is_documented(pages: dict[str, str]) -> None:
    reference = "".join(text for path, text in pages.items() if path.startswith("reference/"))
    promised = re.findall(r"`(gymnast_core(?:\.\w+)+)`", pages["stability.md"])
    names = [name.rpartition(".")[2] for name in promised if not inspect.ismodule(pkgutil.resolve_name(name))]
    assert len(names) > 30
    missing = [name for name in names if not re.search(rf"^#+ {name}\b", reference, flags=re.MULTILINE)]
    assert missing == []


def test_every_page_is_in_the_navigation(pages: dict[str, str]) -> None:
    class Loader(yaml.SafeLoader):
        pass

    Loader.add_multi_constructor("!", lambda loader, suffix, node: suffix)
    navigation = str(yaml.load((ROOT / "mkdocs.yml").read_text(), Loader)["nav"])
    assert [path for path in pages if f"'{path}'" not in navigation] == []
