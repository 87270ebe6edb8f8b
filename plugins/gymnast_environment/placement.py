"""Which environments may run in this process: those whose class says so."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import gymnasium
from gymnasium.envs.registration import EnvSpec, load_env_creator

from gymnast_environment.hosting import Hosting
from gymnast_environment.hosts import Kind
from gymnast_environment.view import View
from gymnast_environment.worker.session import installed_environments

SHARED = "gymnast_shared_process"
"""Key of a class's `metadata`: True where several such environments and everything else can run in one process."""


class Placement:
    """Decides where environments run. What it found out of an id is kept."""

    def __init__(self, hosting: Hosting) -> None:
        self._hosting = hosting
        self._shared: dict[str, bool] = {}

    def shared(self, environment_id: str) -> bool:
        """Whether an environment runs in this process, without a bound on their number."""
        if self._hosting.python is not None:
            return False
        if environment_id not in self._shared:
            self._shared[environment_id] = _says_shared(environment_id)
        return self._shared[environment_id]

    def here(self, environment_id: str) -> bool:
        """Whether an environment runs in this process, for whatever reason."""
        return (self._hosting.workers == 0 and self._hosting.python is None) or self.shared(environment_id)

    def kind(self, environment_id: str, args: Mapping[str, Any], view: View) -> Kind:
        """Which environment is made, and how it is seen; with its registration, where only this process knows it."""
        entry = None
        if self._hosting.python is None and not self.here(environment_id):
            entry = _entry(environment_id)
        return Kind(environment_id, dict(args), view, entry)


def _says_shared(environment_id: str) -> bool:
    spec = _spec(environment_id)
    if spec is None or spec.entry_point is None:
        return False
    try:
        creator = spec.entry_point if callable(spec.entry_point) else load_env_creator(spec.entry_point)
    except Exception:  # whoever makes it says what is wrong
        return False
    metadata = getattr(creator, "metadata", None)
    return isinstance(metadata, Mapping) and metadata.get(SHARED) is True


def _spec(environment_id: str) -> EnvSpec | None:
    """How this process knows an environment; None if it does not."""
    module, _, name = environment_id.rpartition(":")
    try:
        if module:
            importlib.import_module(module)
        if name not in gymnasium.registry:
            for installed in installed_environments():
                with suppress(Exception):
                    installed.load()()
        return gymnasium.spec(name)
    except Exception:  # whoever makes it says what is wrong
        return None


def _entry(environment_id: str) -> dict[str, Any] | None:
    """What `gymnasium.register` needs in another process, where a script registered the environment itself."""
    spec = _spec(environment_id)
    if spec is None or spec.kwargs or spec.additional_wrappers:
        return None
    point = spec.entry_point
    if callable(point):
        point = f"{point.__module__}:{getattr(point, '__qualname__', '')}"
    if not isinstance(point, str) or "<" in point or point.startswith("__main__:"):
        return None
    return {"entry_point": point, "max_episode_steps": spec.max_episode_steps, "order_enforce": spec.order_enforce}
