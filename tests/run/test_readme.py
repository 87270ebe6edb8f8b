"""What README tells people to type exists and is accepted."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest

from gymnast_core.cli import cli
from gymnast_core.config import RunConfig, load_config
from gymnast_core.plugins.compose import registries
from gymnast_core.training.engine import engines
from gymnast_evaluation.config import EvaluateConfig
from gymnast_fit.config import FitConfig
from gymnast_imagine.config import ImagineConfig

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
TABLETOP = (ROOT / "plugins/gymnast_tabletop/README.md").read_text(encoding="utf-8")
SCHEMAS = {"train": RunConfig, "fit": FitConfig, "evaluate": EvaluateConfig, "imagine": ImagineConfig}


def commands(text: str) -> list[list[str]]:
    lines = [line.split("#")[0].strip() for line in text.splitlines()]
    return [shlex.split(line) for line in lines if line.startswith("gymnast ")]


@pytest.mark.parametrize("command", commands(README) + commands(TABLETOP), ids=" ".join)
def test_a_command_line_is_understood(command: list[str]) -> None:
    name, *arguments = command[1:]
    assert cli.get_command(click.Context(cli), name) is not None
    if name not in SCHEMAS or "--resume" in arguments:
        return
    overrides = [argument for argument in arguments if "=" in argument]
    load_config(SCHEMAS[name], next(a for a in arguments if "=" not in a), overrides)


def test_every_make_target_exists() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"^ {4}make (\w+)", README, flags=re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target


def test_every_file_that_is_named_exists() -> None:
    paths = re.findall(r"(?:python |\]\(|`)((?:benchmarks|docs|plugins|gymnast_core)/[\w/.-]+\.\w+)", README + TABLETOP)
    assert paths
    for path in paths:
        assert (ROOT / path).exists(), path


def test_every_component_in_the_table_is_installed() -> None:
    installed = {name for registry in (*registries(), engines()) for name in registry.names()}
    rows = [line.split("|")[2] for line in README.splitlines() if line.startswith("| ") and "`" in line.split("|")[2]]
    named = {name for row in rows for name in re.findall(r"`([\w-]+)`", row)}
    assert named >= {"worldgym", "openvla-oft", "grpo"}
    assert named <= installed


def test_no_placeholder_is_left() -> None:
    assert not re.findall(r"@[A-Z_]+@", README)
