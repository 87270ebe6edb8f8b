"""Whether an environment's seeds can be relied on: the whole observation of two resets, not only its picture."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from .keys import array, leaves
from .pictures import LEVELS, differing_share

OTHER_SEEDS = 8
"""Other seeds that are tried until one shows something else; a few starts that coincide prove nothing."""
MOVES = 2
"""Actions taken between two resets, so that what a reset forgets to put back is seen."""


class Rehearsal:
    """Resets one environment several times and compares what it shows."""

    def __init__(self, environment: Any, options: Mapping[str, Any] | None) -> None:
        self._environment, self._options = environment, options

    def verdict(self, seed: int, constant: bool) -> str | None:
        """What is wrong, with what to do; None if the same seed shows the same and another seed something else.

        Where `options` say what to show, or with `constant`, other seeds may show the same.
        """
        first = self._shown(seed)
        # Options may fit one seed only, so no other is tried with them.
        varies = constant or bool(self._options) or self._varies(seed, first)
        self._move()
        found = difference(first, self._shown(seed))
        if found is not None:
            return (
                f"two resets with the seed {seed} show different things ({found}), so nothing that starts there can be "
                "repeated. An environment must draw everything in reset(seed=…) from self.np_random, and put "
                "everything back. If it wants its seed in another way (a seed() method, a flag that lets its random "
                "numbers be seeded), wrap it so that reset does that."
            )
        if not varies:
            return (
                f"it ignores its seed: {OTHER_SEEDS} other seeds than {seed} show the very same start, so tasks that "
                "differ in the seed alone are one and the same. Wrap it so that reset(seed=…) draws the start, "
                "name the start in the tasks' options, or say that it has only one: constant_start=true."
            )
        return None

    def _varies(self, seed: int, first: Mapping[str, Any]) -> bool:
        """Whether any of the seeds that follow shows something else."""
        for other in range(seed + 1, seed + 1 + OTHER_SEEDS):
            self._move()
            try:
                if difference(first, self._shown(other)) is not None:
                    return True
            except Exception:  # not every number need be a seed of this environment: it tells them apart
                return True
        return False

    def _shown(self, seed: int) -> dict[str, Any]:
        options = dict(self._options) if self._options else None  # some take out what they read
        observation, _ = self._environment.reset(seed=seed, options=options)
        shown = {key: _kept(value) for key, value in leaves(observation)}
        if not any(_is_picture(value) for value in shown.values()) and self._environment.render_mode == "rgb_array":
            shown["render()"] = _kept(self._environment.render())
        return shown

    def _move(self) -> None:
        space = self._environment.action_space
        space.seed(0)
        for _ in range(MOVES):
            *_, terminated, truncated, _ = self._environment.step(space.sample())
            if np.any(array(terminated)) or np.any(array(truncated)):
                break


def difference(first: Mapping[str, Any], second: Mapping[str, Any]) -> str | None:
    """Where two observations differ, in words; None if they are the same: pictures nearly, all else exactly."""
    if first.keys() != second.keys():
        return f"the keys {sorted(first.keys() ^ second.keys())} are in one of them only"
    for key, value in first.items():
        other = second[key]
        name = key or "the observation"
        if not isinstance(value, np.ndarray) or not isinstance(other, np.ndarray):
            if type(value) is not type(other) or value != other:
                return f"{name}: {value!r} and {other!r}"
        elif (value.shape, value.dtype) != (other.shape, other.dtype):
            return f"{name}: {value.dtype} {value.shape} and {other.dtype} {other.shape}"
        elif _is_picture(value):
            share = max(map(differing_share, _pictures(value), _pictures(other)))
            if share > 0.0:
                return f"{name}: {share:.2%} of its pixels by more than {LEVELS} levels"
        elif not np.array_equal(value, other, equal_nan=value.dtype.kind in "fc"):
            return f"{name}: {_example(value, other)}"
    return None


def _kept(value: Any) -> Any:
    value = array(value)
    if isinstance(value, (np.ndarray, np.generic)):
        return np.array(value)
    return value if isinstance(value, (str, bytes, int, float, bool, type(None))) else type(value).__name__


def _is_picture(value: Any) -> bool:
    return isinstance(value, np.ndarray) and value.dtype == np.uint8 and value.ndim >= 3 and value.shape[-1] in (3, 4)


def _pictures(value: np.ndarray) -> np.ndarray:
    """(any number, H, W, C)."""
    return value.reshape(-1, *value.shape[-3:])


def _example(value: np.ndarray, other: np.ndarray) -> str:
    """The first number that differs."""
    mine, others = value.reshape(-1), other.reshape(-1)
    unlike = (mine != others) & ~((mine != mine) & (others != others))  # NaN equals NaN
    place = int(np.flatnonzero(unlike)[0])
    where = f"[{place}]" if value.size > 1 else ""
    return f"number{where} is {mine[place]} and {others[place]}"
