"""Dots as plugins, and the command as a user calls it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dots
import pytest
from click.testing import CliRunner

from gymnast_core.cli import cli
from gymnast_core.plugins.compose import registries

Imagine = Callable[..., dict[str, Any]]


@pytest.fixture(autouse=True)
def dot_plugins() -> Iterator[None]:
    registries.cache_clear()
    registries().world_models.register("dots", dots.DotWorld)
    registries().world_models.register("other-dots", dots.DotWorld)
    registries().datasets.register("dots", dots.DotEpisodes)
    dots.SEEN.clear()
    yield
    registries.cache_clear()


@pytest.fixture
def imagine(tmp_path: Path) -> Imagine:
    """Run `gymnast imagine world_model=dots ARGUMENTS output=FOLDER`: its printed summary. Errors are raised."""

    def run(*arguments: str, output: str = "out", source: tuple[str, ...] = ("world_model=dots",)) -> dict[str, Any]:
        words = ["imagine", *source, *arguments, f"output={tmp_path / output}"]
        done = CliRunner().invoke(cli, words, standalone_mode=False, catch_exceptions=False)
        return json.loads(done.stdout)

    return run
