"""A simulator as strangers write it: NumPy and Gymnasium alone, so that it runs in a worker; it can also misbehave."""

from __future__ import annotations

import ctypes
import os
import sys
import time
from typing import Any, ClassVar

import gymnasium
import numpy as np

SIZE = 16
ID = "plain_environment:gymnast-test/Plain-v0"


class Plain(gymnasium.Env):
    """Action (2,) moves a square of 3 x 3 pixels; success beyond x = 8. The picture is upside down where `flipped`.

    `fault` happens at the second step, or at the reset or while it is made: "raise", "exit", "segfault", "hang",
    "hold" (hangs with Python's lock), "large" (a picture of 300 MB), "grow" (a picture of another size).
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": 20}

    def __init__(self, *, fault: str | None = None, at: str = "step", name: str = "plain", seconds: float = 0.0):
        self.fault, self.at, self.name, self.seconds = fault, at, name, seconds
        self.action_space = gymnasium.spaces.Box(-4.0, 4.0, (2,), np.float32)
        picture = gymnasium.spaces.Box(0, 255, (SIZE, SIZE, 3), np.uint8)
        self.observation_space = gymnasium.spaces.Dict(
            {"image": picture, "robot": gymnasium.spaces.Dict({"place": gymnasium.spaces.Box(-99, 99, (2,))})}
        )
        self.render_mode = None
        self.observed: dict[str, Any] | None = None
        if at == "make":
            self._misbehave()

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        super().reset(seed=seed)
        if self.at == "reset" or (options or {}).get("fault"):
            self.fault = (options or {}).get("fault", self.fault)
            self._misbehave()
        self.place = self.np_random.integers(0, 8, 2).astype(np.float32)
        self.steps = 0
        return self._observe(), {}

    def step(self, action: np.ndarray):
        self.steps += 1
        if self.seconds:
            end = time.process_time() + self.seconds
            while time.process_time() < end:
                pass
        if self.at == "step" and self.steps == 2:
            self._misbehave()
        self.place = np.clip(self.place + action, 0, SIZE - 1)
        success = bool(self.place[0] > 8)
        outcomes = {"go right": success, "go down": bool(self.place[1] > 8)}
        return self._observe(), 0.0, False, False, {"success": success, "outcomes": outcomes}

    def expert_action(self) -> np.ndarray:
        return np.array([4.0, 0.0], np.float32)

    def pid(self) -> int:
        return os.getpid()

    def variables(self) -> dict[str, str]:
        return dict(os.environ)

    def modules(self) -> list[str]:
        return sorted(sys.modules)

    @property
    def instruction(self) -> str:
        return f"move the {self.name} square to the right"

    def _observe(self) -> dict[str, Any]:
        if self.observed is not None:
            return self.observed
        side = 4 * SIZE if self.fault == "grow" and self.at == "step" and self.steps == 2 else SIZE
        image = np.zeros((side, side, 3), np.uint8)
        x, y = (int(value) for value in self.place)
        image[y : y + 3, x : x + 3] = (200, 100, 50)
        return {"image": image, "robot": {"place": self.place.astype(np.float32)}}

    def _misbehave(self) -> None:
        if self.fault is None:
            return
        print(f"about to {self.fault}", file=sys.stderr, flush=True)
        if self.fault == "large":
            self.observed = {"image": np.zeros((10_000, 10_000, 3), np.uint8), "robot": {"place": self.place}}
        if self.fault == "raise":
            raise RuntimeError("the table collapsed")
        if self.fault == "exit":
            os._exit(7)
        if self.fault == "segfault":
            ctypes.string_at(0)
        if self.fault == "hang":
            time.sleep(1000)
        if self.fault == "hold":
            ctypes.PyDLL(None).sleep(1000)


def slowly(environment: gymnasium.Env, observation: dict[str, Any]) -> np.ndarray:
    """A scripted expert: half a pixel to the right for every pixel from the left."""
    return np.array([observation["robot"]["place"][0] / 2, 0.0])


gymnasium.register("gymnast-test/Plain-v0", entry_point="plain_environment:Plain")
