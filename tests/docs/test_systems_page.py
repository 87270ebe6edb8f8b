"""docs/systems.md: what it names exists, here or in a contributed package, and presets are those of their command."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from gymnast_core.plugins.registry import registries

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "systems.md").read_text(encoding="utf-8")
PRESETS = {
    path.stem: yaml.safe_load(path.read_text(encoding="utf-8"))
    for folder in ("plugins/*/presets", "contrib/*/*/presets")
    for path in ROOT.glob(f"{folder}/*.yaml")
}
COMMANDS = re.findall(r"`gymnast (train|evaluate|adapt|dyna|collect|bench|fit) ([\w-]+)", PAGE)


@pytest.mark.parametrize(("command", "preset"), COMMANDS)
def test_the_preset_is_one_of_that_command(command: str, preset: str) -> None:
    assert PRESETS[preset]["kind"] == command


def test_presets_named_alone_are_there() -> None:
    named = set(re.findall(r"`(?:gymnast (?:collect|fit) )?((?:collect|fit|metaworld)-[\w-]+)`", PAGE))
    assert len(named) >= 4 and named <= PRESETS.keys()


def test_components_and_packages_are_there() -> None:
    components = re.findall(r"(?:world model|policy|reward model|optimizer|dataset) `([\w+-]+)`", PAGE)
    contributed = "".join(path.read_text(encoding="utf-8") for path in ROOT.glob("contrib/*/pyproject.toml"))
    names = {name for registry in registries() for name in registry.names()}
    assert len(components) > 12
    assert [name for name in components if name not in names and f"\n{name} = " not in contributed] == []
    packages = set(re.findall(r"`(contrib/[\w-]+)`", PAGE))
    assert len(packages) == 8 and all((ROOT / package).is_dir() for package in packages)
