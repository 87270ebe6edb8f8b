"""A simulator small enough to know by heart: a bright square slides along a dark line."""

from __future__ import annotations

from typing import Any, ClassVar

import gymnasium
import numpy as np
import torch

from gymnast_core.types import EnvironmentStart, Rollout, Task, one_camera

SIZE = 16
ID = "gymnast-test/Slider-v0"


class Slider(gymnasium.Env):
    """Action (1,) moves the square by that many pixels; success beyond `goal`; ends at the right wall.

    `observation` chooses how the picture is shown: dictionary, image, or only by `render`.
    """

    metadata: ClassVar[dict[str, Any]] = {
        "render_modes": ["rgb_array"],
        "render_fps": 10,
        "gymnast_shared_process": True,
    }
    made: ClassVar[int] = 0

    def __init__(self, *, observation: str = "dictionary", goal: float = 8.0, render_mode: str | None = None):
        type(self).made += 1
        self.shown, self.goal, self.render_mode = observation, goal, render_mode
        self.action_space = gymnasium.spaces.Box(-4.0, 4.0, (1,), np.float32)
        picture = gymnasium.spaces.Box(0, 255, (SIZE, SIZE, 3), np.uint8)
        position = gymnasium.spaces.Box(-np.inf, np.inf, (1,), np.float64)
        both = gymnasium.spaces.Dict({"image": picture, "position": position})
        self.observation_space = {"dictionary": both, "image": picture, "position": position}[observation]

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        super().reset(seed=seed)
        if options and options.get("broken"):
            raise RuntimeError("the table collapsed")
        self.x = float(self.np_random.integers(0, 4))
        self.shade = int((options or {}).get("shade", 255))
        return self._observe(), {}

    def step(self, action: np.ndarray):
        self.x = min(self.x + float(action[0]), SIZE - 1.0)
        return self._observe(), 0.0, self.x >= SIZE - 1, False, {"success": self.x >= self.goal}

    def render(self):
        return self._picture() if self.render_mode == "rgb_array" else None

    def _picture(self) -> np.ndarray:
        image = np.zeros((SIZE, SIZE, 3), np.uint8)
        image[SIZE // 2, int(self.x)] = self.shade
        return image

    def _observe(self) -> Any:
        if self.shown == "dictionary":
            return {"image": self._picture(), "position": np.array([self.x])}
        return self._picture() if self.shown == "image" else np.array([self.x])


gymnasium.register(ID, entry_point=Slider)


def make_task(seed: int = 0, *, environment: str = ID, options: Any = None, args: Any = None, **changes: Any) -> Task:
    """A task that starts from what the environment shows; `changes` are fields of the task."""
    options = {"shade": 200} if options is None else options
    args = {} if args is None else args
    slider = Slider(**args)
    slider.reset(seed=seed, options=options if not options.get("broken") else None)
    fields: dict[str, Any] = {
        "id": f"slide-{seed}",
        "instruction": "slide the square to the right",
        "frames_TVHWC": one_camera(torch.from_numpy(slider._picture())[None]),
        "start": EnvironmentStart(environment, seed, options, args),
    }
    return Task(**(fields | changes))


def make_rollout(task: Task, actions: list[float], outcome: float | None = None) -> Rollout:
    """Two actions a decision; the frames are whatever a world model might have imagined."""
    actions_NLA = torch.tensor(actions).view(-1, 2, 1)
    outcome_S = None if outcome is None else torch.full((len(actions),), outcome)
    return Rollout(
        task=task,
        group=0,
        frames_TVHWC=task.frames_TVHWC.repeat(len(actions) + 1, 1, 1, 1, 1),
        actions_NLA=actions_NLA,
        log_prob_NLD=torch.zeros_like(actions_NLA),
        temperature=1.0,
        outcome_S=outcome_S,
    )
