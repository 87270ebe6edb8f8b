"""Environments kept for reuse: making one is often a hundred times slower than resetting it."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping
from contextlib import suppress
from functools import lru_cache
from importlib.metadata import entry_points
from typing import Any

import gymnasium

from gymnast_core.errors import DataError


class EnvironmentPool:
    """Hands out environments by Gymnasium id and arguments, and takes them back."""

    def __init__(self) -> None:
        self._free: dict[str, list[gymnasium.Env]] = defaultdict(list)
        self._closed = False

    def lend(self, environment_id: str, args: Mapping[str, object]) -> tuple[str, gymnasium.Env]:
        """An environment that nobody else holds, and the key under which `take_back` stores it."""
        self._closed = False
        key = f"{environment_id} {json.dumps(dict(args), sort_keys=True, default=repr)}"
        free = self._free[key]
        return key, free.pop() if free else make_environment(environment_id, args)

    def take_back(self, key: str, environment: gymnasium.Env) -> None:
        if self._closed:
            environment.close()
        else:
            self._free[key].append(environment)

    def close(self) -> None:
        """Close what is free now; what is still lent is closed when it comes back."""
        self._closed = True
        for environments in self._free.values():
            for environment in environments:
                environment.close()
        self._free.clear()


def make_environment(environment_id: str, args: Mapping[str, object]) -> gymnasium.Env:
    """`gymnasium.make`, with one clear `DataError` for whatever goes wrong in it."""
    keywords: dict[str, Any] = dict(args)
    if ":" not in environment_id and environment_id not in gymnasium.registry:
        _register_installed()
    try:
        return gymnasium.make(environment_id, disable_env_checker=True, **keywords)
    except gymnasium.error.Error as error:
        raise DataError(
            f"No Gymnasium environment {environment_id!r} could be made: {error} "
            "Install the package that registers it, or name its module too: 'package.module:Name-v0'."
        ) from error
    except Exception as error:
        raise DataError(
            f"gymnasium.make({environment_id!r}) with {keywords} failed: {type(error).__name__}: {error}. "
            "Check start.args of the task."
        ) from error


@lru_cache(maxsize=1)
def _register_installed() -> None:
    """Register what installed packages offer as `gymnasium.envs`: tasks read from a disk import no package."""
    for entry in entry_points(group="gymnasium.envs"):
        # A broken package must not stand in the way of the others; if it is the wanted one, `make` says so.
        with suppress(Exception):
            entry.load()()
