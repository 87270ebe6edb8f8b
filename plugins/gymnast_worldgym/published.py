"""Presets of the published checkpoints (`published.yaml`)."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Any

import yaml

from gymnast_core.errors import ConfigError, unknown_name


@cache
def _presets() -> dict[str, dict[str, Any]]:
    text = resources.files(__package__).joinpath("published.yaml").read_text(encoding="utf-8")
    return yaml.safe_load(text)


def names() -> list[str]:
    """Names of the presets, sorted."""
    return sorted(_presets())


def preset(name: str | None) -> dict[str, Any]:
    """Field values of a preset; none without a name. Raises `ConfigError` that lists the known ones."""
    if name is None:
        return {}
    if name not in _presets():
        raise ConfigError(unknown_name("preset", name, names()))
    return dict(_presets()[name])


def fitting(sizes: Mapping[str, int]) -> list[str]:
    """Names of the presets that are of weights of these sizes."""
    return [name for name in names() if sizes.items() <= preset(name).items()]
