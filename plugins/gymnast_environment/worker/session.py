"""One environment: made, reset, stepped, looked at. The same code in a worker process and in this one."""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from importlib import metadata
from typing import Any

import gymnasium
import numpy as np

from .faults import Refused, described
from .keys import array, number
from .resets import Rehearsal
from .seeing import Eye, Sensed, name_of


class Session:
    """Holds at most one environment.

    Raises `Refused` for what the user can set right, and lets through whatever the environment itself raises.
    """

    def __init__(self, view: Mapping[str, Any]) -> None:
        self._eye = Eye(view)
        self._repeat = int(view["action_repeat"])
        self._environment: Any = None
        self._observation: Any = None
        self._sensed: Sensed | None = None

    def make(
        self, environment_id: str, args: Mapping[str, Any], entry: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """`gymnasium.make`; what there is to know of the environment before it is reset.

        `entry` ("module:name", with the spec's other values) registers an id that no import registers.
        """
        try:
            name = _registered(environment_id, entry)
            self._environment = gymnasium.make(name, disable_env_checker=True, **args)
        except gymnasium.error.Error as error:
            raise Refused(
                "make",
                f"No Gymnasium environment {environment_id!r} could be made: {error} "
                "Install the package that registers it, or name its module too: 'package.module:Name-v0'.",
            ) from error
        except Exception as error:
            raise Refused(
                "make",
                f"gymnasium.make({environment_id!r}) with {dict(args)} failed: {described(error)}. "
                "Check start.args of the task.",
            ) from error
        return self._about()

    def reset(self, seed: int, options: Mapping[str, Any] | None) -> Sensed:
        observation, info = self._environment.reset(seed=seed, options=dict(options) if options else None)
        self._observation = observation
        self._sensed = self._eye.start(self._environment, observation, info)
        return self._sensed

    def step(self, action_A: np.ndarray) -> Sensed:
        """One action, held for as many steps as the view says; an episode that has ended stays as it is."""
        if self._sensed is None:
            raise Refused("action", f"{name_of(self._environment)} must be reset before it takes actions.")
        action_A = self._fitting(action_A)
        for _ in range(self._repeat):
            if self._sensed.ended:
                break
            observation, _, terminated, truncated, info = self._environment.step(action_A)
            ended = bool(number(terminated)) or bool(number(truncated))
            self._observation = observation
            self._sensed = self._eye.look(self._environment, observation, info, self._sensed, ended)
        return self._sensed

    def expert(self, function: str | None) -> np.ndarray:
        """The scripted expert's action for the current state, float32 (A,)."""
        if function is None:
            act = getattr(self._environment.unwrapped, "expert_action", None)
            if act is None:
                raise Refused(
                    "expert",
                    f"{name_of(self._environment)} has no scripted expert: its class defines no expert_action(). Name "
                    "one as 'module:function', called as function(environment, observation).",
                )
            action = act()
        else:
            action = _function(function)(self._environment, self._observation)
        return np.array(array(action), dtype=np.float32).reshape(-1)

    def call(self, method: str, keywords: Mapping[str, Any]) -> Any:
        """What a method (or attribute) of the environment itself returns, as plain values."""
        found = getattr(self._environment.unwrapped, method, None)
        if found is None:
            raise Refused("call", f"{name_of(self._environment)} has no {method!r}.")
        return plain(found(**keywords) if callable(found) else found)

    def rehearse(self, seed: int, options: Mapping[str, Any] | None, constant: bool) -> str | None:
        """Why this environment's seeds cannot be relied on; None if they can. Leaves it to be reset."""
        self._sensed = None
        return Rehearsal(self._environment, options).verdict(seed, constant)

    def close(self) -> None:
        if self._environment is not None:
            environment, self._environment, self._observation = self._environment, None, None
            environment.close()

    def _about(self) -> dict[str, Any]:
        space = self._environment.action_space
        box = isinstance(space, gymnasium.spaces.Box) and len(space.shape) == 1
        fps = number((self._environment.metadata or {}).get("render_fps"))
        return {
            "name": name_of(self._environment),
            "space": str(space),
            "low": [float(value) for value in space.low] if box else None,
            "high": [float(value) for value in space.high] if box else None,
            "fps": fps if fps is not None and np.isfinite(fps) and fps > 0 else None,
        }

    def _fitting(self, action_A: np.ndarray) -> np.ndarray:
        space = self._environment.action_space
        if not isinstance(space, gymnasium.spaces.Box) or space.shape != action_A.shape:
            raise Refused(
                "action",
                f"Actions have {len(action_A)} dimensions; environment {name_of(self._environment)} takes {space}. "
                "Choose a policy and tasks of the same robot.",
            )
        return action_A.astype(space.dtype)


def plain(value: Any) -> Any:
    """Arrays and tensors as lists, all else as JSON can hold it. Raises `Refused` for what it cannot."""
    value = array(value)
    if isinstance(value, (np.ndarray, np.generic)):
        return value.tolist()
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    try:
        json.dumps(value)
    except (TypeError, ValueError):
        raise Refused("call", f"A {type(value).__name__} cannot be sent to another process.") from None
    return value


def _registered(environment_id: str, entry: Mapping[str, Any] | None) -> str:
    """The id without its module, registered if anything installed registers it."""
    module, colon, name = environment_id.rpartition(":")
    if colon:
        importlib.import_module(module)
    if name not in gymnasium.registry:
        for installed in installed_environments():
            # A broken package must not stand in the way of the others; if it is the wanted one, `make` says so.
            with suppress(Exception):
                installed.load()()
    if name not in gymnasium.registry and entry is not None:
        gymnasium.register(name, **entry)
    return name


def installed_environments() -> Iterator[Any]:
    """The entry points by which packages register their environments; Gymnasium 1.x loads none by itself."""
    found: Any = metadata.entry_points()
    chosen = found.select(group="gymnasium.envs") if hasattr(found, "select") else found.get("gymnasium.envs", ())
    yield from chosen


def _function(name: str) -> Any:
    module, colon, attribute = name.partition(":")
    try:
        if not colon:
            raise ImportError("it must be written 'module:function'")
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise Refused("expert", f"The expert {name!r} cannot be used: {described(error)}.") from error
