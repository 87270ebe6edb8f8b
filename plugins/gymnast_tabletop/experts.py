"""Scripted behaviours: an expert that pushes the named block, and what play data needs besides.

A behaviour is called with the state and returns a displacement of the end-effector in metres. It is drawn
from a seeded numpy generator and keeps its own memory, so one episode needs one behaviour.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from gymnast_core.errors import ConfigError, unknown_name
from gymnast_tabletop.instructions import BEHIND, GOALS, Goal, feasible_goals, parse
from gymnast_tabletop.scene import BLOCK_SIZE, EFFECTOR_LIMIT, EFFECTOR_RADIUS, MAX_DELTA, Scene

State = NDArray[np.float64]
Behaviour = Callable[[State], NDArray[np.float64]]

_CLEARANCE = BLOCK_SIZE / 2 + EFFECTOR_RADIUS + 0.009
"""Distance from a block's centre at which the end-effector passes it, metres."""
_PUSHED = 0.052
"""Displacement after which the expert stops, metres."""


def limit(move: NDArray[np.float64], fraction: float = 1.0) -> NDArray[np.float64]:
    """Shorten a displacement so that each axis respects the limit of a control step; keeps its direction."""
    return move * min(1.0, fraction * MAX_DELTA / max(np.abs(move).max(), 1e-9))


def steer(here: State, goal: State, obstacles: Sequence[State], radius: float) -> NDArray[np.float64]:
    """First leg of a path to `goal` around discs: straight, or past the first disc on its shorter side."""
    path = goal - here
    length = float(np.linalg.norm(path))
    if length < 1e-6:
        return path
    unit = path / length
    first, detour = np.inf, path
    for obstacle in obstacles:
        offset = obstacle - here
        along, across = float(offset @ unit), offset - (offset @ unit) * unit
        distance = float(np.linalg.norm(across))
        if distance >= radius or not 0.0 < along < length + 0.5 * radius or along >= first:
            continue
        side = -across / distance if distance > 1e-6 else np.array([-unit[1], unit[0]])
        waypoints = [obstacle + s * side * 1.15 * radius for s in (1.0, -1.0)]
        inside = [w for w in waypoints if np.abs(w).max() <= EFFECTOR_LIMIT]
        first, detour = along, (inside or waypoints)[0] - here
        gap = float(np.linalg.norm(offset))
        if gap < radius:
            # Already too close: slide along the disc instead of cutting through it.
            away = -offset / max(gap, 1e-6)
            detour = detour - min(0.0, float(detour @ away)) * away + away * (radius - gap)
    return detour


class Expert:
    """Goes around the blocks behind the named one, pushes it until it has moved enough, then waits."""

    def __init__(
        self,
        goal: Goal,
        scene: Scene,
        *,
        speed: float = 1.0,
        noise: float = 0.0,
        offset: float = 0.0,
        rng: np.random.Generator | None = None,
    ) -> None:
        """`speed` in fractions of the limit; `noise`, the standard deviation of each action, and `offset`,
        how far from the block's centre to push, in metres."""
        self._unit = goal.unit
        self._across = np.array([-self._unit[1], self._unit[0]])
        self._named = scene.colours.index(goal.colour)
        self._start = scene.state[2:].reshape(-1, 3)[self._named, :2].copy()
        self._speed, self._noise, self._offset, self._rng = speed, noise, offset, rng

    def __call__(self, state: State) -> NDArray[np.float64]:
        move = limit(self._move(state), self._speed)
        if self._noise and self._rng is not None:
            move = move + self._rng.normal(0.0, self._noise, 2)
        return limit(move)

    def _move(self, state: State) -> NDArray[np.float64]:
        here, blocks = state[:2], state[2:].reshape(-1, 3)[:, :2]
        block = blocks[self._named]
        left = _PUSHED - float((block - self._start) @ self._unit)
        if left <= 0.0:
            return np.zeros(2)
        relative = here - block
        along, lateral = float(relative @ self._unit), float(relative @ self._across) - self._offset
        # A block that drifts off its line is pushed back by pushing on the side it drifted to.
        drift = float((block - self._start) @ self._across)
        wanted = float(np.clip(0.4 * drift, -0.008, 0.008))
        if along < -BLOCK_SIZE / 2 and abs(lateral - wanted) < 0.012:
            gap = max(0.0, -along - BLOCK_SIZE / 2 - EFFECTOR_RADIUS)
            return self._unit * (gap + left + 0.001) + self._across * (wanted - lateral)
        behind = block + self._across * self._offset - self._unit * BEHIND
        return steer(here, behind, list(blocks), _CLEARANCE)


class GoalSwitching:
    """Pursues one goal after the other, a few steps each."""

    def __init__(self, scene: Scene, rng: np.random.Generator) -> None:
        self._scene, self._rng, self._left = scene, rng, 0

    def __call__(self, state: State) -> NDArray[np.float64]:
        if self._left == 0:
            here = Scene(self._scene.colours, state)
            goals = feasible_goals(here) or [goal for goal in GOALS if goal.colour in here.colours]
            goal = goals[self._rng.integers(len(goals))]
            self._left = int(self._rng.integers(5, 14))
            noise, speed = self._rng.uniform(0.0, 0.005), self._rng.uniform(0.6, 1.0)
            self._expert = Expert(goal, here, noise=noise, speed=speed, rng=self._rng)
        self._left -= 1
        return self._expert(state)


class Ramming:
    """Drives at random points on or near blocks and beyond: off-centre pushes, spins, block against block."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng, self._left = rng, 0

    def __call__(self, state: State) -> NDArray[np.float64]:
        if self._left == 0:
            blocks = state[2:].reshape(-1, 3)[:, :2]
            aim = blocks[self._rng.integers(len(blocks))] + self._rng.uniform(-0.04, 0.04, 2)
            path = aim - state[:2]
            length = max(float(np.linalg.norm(path)), 1e-3)
            speed = self._rng.uniform(0.4, 1.0)
            self._move = limit(path / length * MAX_DELTA * 1.5, speed)
            beyond = self._rng.uniform(0.02, 0.09)
            self._left = max(1, int((length + beyond) / max(float(np.linalg.norm(self._move)), 1e-3)))
        self._left -= 1
        return limit(self._move + self._rng.normal(0.0, 0.002, 2))


class RandomWalk:
    """Actions that change slowly and know nothing: free space, edges, chance contacts, all speeds."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng, self._move = rng, rng.uniform(-MAX_DELTA, MAX_DELTA, 2)
        self._memory = float(rng.uniform(0.0, 0.9))

    def __call__(self, state: State) -> NDArray[np.float64]:
        fresh = self._rng.uniform(-1.3 * MAX_DELTA, 1.3 * MAX_DELTA, 2)
        self._move = self._memory * self._move + (1 - self._memory) * fresh
        # Walking into an edge is one thing the camera should see, staying there for seconds is not.
        outside = np.abs(state[:2] + self._move) > EFFECTOR_LIMIT
        self._move[outside & (self._rng.random(2) < 0.7)] *= -1.0
        return np.clip(self._move, -MAX_DELTA, MAX_DELTA)


def _play(scene: Scene, instruction: str, rng: np.random.Generator) -> Behaviour:
    kind = rng.choice(4, p=[0.35, 0.25, 0.25, 0.15])
    if kind == 0:
        goals = feasible_goals(scene)
        goal = goals[rng.integers(len(goals))]
        noise, offset = rng.uniform(0.0, 0.008), rng.normal(0.0, 0.006)
        return Expert(goal, scene, speed=rng.uniform(0.5, 1.0), noise=noise, offset=offset, rng=rng)
    return (GoalSwitching(scene, rng), Ramming(rng), RandomWalk(rng))[kind - 1]


def _demonstration(scene: Scene, instruction: str, rng: np.random.Generator) -> Behaviour:
    return Expert(parse(instruction), scene, speed=1.0, noise=0.001, rng=rng)


def _slow_demonstration(scene: Scene, instruction: str, rng: np.random.Generator) -> Behaviour:
    speed, noise = rng.uniform(0.5, 0.8), rng.uniform(0.002, 0.006)
    return Expert(parse(instruction), scene, speed=speed, noise=noise, rng=rng)


BEHAVIOURS: dict[str, Callable[[Scene, str, np.random.Generator], Behaviour]] = {
    "play": _play,
    "demonstrations": _demonstration,
    "slow-demonstrations": _slow_demonstration,
}
"""Makers of a behaviour for one episode: (scene, instruction, generator) -> behaviour."""


def behaviour(name: str, scene: Scene, instruction: str, rng: np.random.Generator) -> Behaviour:
    """A behaviour of `BEHAVIOURS` for one episode. Raises `ConfigError` when there is none of that name."""
    if name not in BEHAVIOURS:
        raise ConfigError(unknown_name("behaviour", name, BEHAVIOURS))
    return BEHAVIOURS[name](scene, instruction, rng)
