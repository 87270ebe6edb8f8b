"""A dot that has to reach a corner: small enough to know every pixel, and able to misbehave on request."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import gymnasium
import numpy as np

SIZE = 12
CORNERS = {"top left": (0.1, 0.1), "bottom right": (0.9, 0.9)}
NEAR = 0.08
"""Distance on each axis at which a corner counts as reached, in picture widths."""


class Reach(gymnasium.Env):
    """Action (2,) in [-1, 1] moves the dot by a tenth of the picture. `crash_on` names seeds whose third step fails;
    with `crash_once`, a file that is made then, only the first time."""

    metadata: ClassVar[dict[str, Any]] = {"render_modes": [], "render_fps": 20}

    def __init__(
        self,
        *,
        crash_on: tuple[int, ...] = (),
        crash_once: str | None = None,
        limit: float | None = 1.0,
        says: bool = True,
    ) -> None:
        self.crash_on, self.crash_once, self.says = crash_on, crash_once, says
        bound = np.inf if limit is None else limit
        self.action_space = gymnasium.spaces.Box(-bound, bound, (2,), np.float32)
        picture = gymnasium.spaces.Box(0, 255, (SIZE, SIZE, 3), np.uint8)
        self.observation_space = gymnasium.spaces.Dict(
            {
                "front": picture,
                "top": picture,
                "robot": gymnasium.spaces.Dict({"place": gymnasium.spaces.Box(0, 1, (2,), np.float64)}),
                "task": gymnasium.spaces.Text(40, charset="abcdefghijklmnopqrstuvwxyz "),
            }
        )

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        super().reset(seed=seed)
        self.seed, self.steps = seed, 0
        self.at = self.np_random.uniform(0.3, 0.7, 2)
        self.corner = (options or {}).get("corner") or list(CORNERS)[int(self.np_random.integers(2))]
        return self._observation(), self._info()

    def step(self, action: np.ndarray):
        self.steps += 1
        if self.seed in self.crash_on and self.steps == 3 and not (self.crash_once and Path(self.crash_once).exists()):
            if self.crash_once:
                Path(self.crash_once).touch()
            raise RuntimeError("the dot fell off the table")
        self.at = np.clip(self.at + 0.1 * np.asarray(action, np.float64), 0, 1)
        return self._observation(), 0.0, False, self.steps >= 30, self._info()

    def expert_action(self) -> np.ndarray:
        return np.clip((np.array(CORNERS[self.corner]) - self.at) * 10, -1, 1)

    def _info(self) -> dict[str, Any]:
        reached = {name: bool((np.abs(self.at - place) < NEAR).all()) for name, place in CORNERS.items()}
        words = {f"go to the {name}": done for name, done in reached.items()}
        return {"success": reached[self.corner], "hindsight": words} if self.says else {}

    def _observation(self) -> dict[str, Any]:
        views = []
        for colour in ((255, 40, 0), (0, 40, 255)):
            picture = np.full((SIZE, SIZE, 3), 30, np.uint8)
            x, y = np.minimum((self.at * SIZE).astype(int), SIZE - 1)
            picture[y, x] = colour
            views.append(picture)
        return {
            "front": views[0],
            "top": views[1],
            "robot": {"place": self.at.copy()},
            "task": f"go to the {self.corner}",
        }


class ReachHere(Reach):
    """The same, in the process that asks for it."""

    metadata: ClassVar[dict[str, Any]] = {**Reach.metadata, "gymnast_shared_process": True}


def hold_still(environment: gymnasium.Env, observation: Any) -> np.ndarray:
    """An expert that never moves."""
    assert observation["front"].shape == (SIZE, SIZE, 3)
    return np.zeros(2)


gymnasium.register("Reach-v0", entry_point="reach_environment:Reach")
gymnasium.register("ReachHere-v0", entry_point="reach_environment:ReachHere")
