"""`gymnast/Libero-v0`: one of LIBERO's tasks as a Gymnasium environment. Nothing here needs gymnast or torch."""

from __future__ import annotations

import string
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from gymnast_libero.conventions import GRIPPERS, ORIENTATIONS, gripper_bounds, oriented, to_libero
from gymnast_libero.rendering import QUALITIES
from gymnast_libero.simulation import CAMERAS, RATE_HZ, Simulation, readings
from gymnast_libero.suites import find_task, horizon_of

READINGS = 8
SETTLE = 10
"""Control steps that published evaluations wait until objects lie still."""


class LiberoEnvironment(gymnasium.Env):
    """A task of LIBERO (arXiv 2306.03310) with its initial states.

    >>> environment = gymnasium.make("gymnast_libero:gymnast/Libero-v0", suite="libero_goal", task=3)
    >>> observation, info = environment.reset(seed=7)        # initial state 7; 57 is the same
    >>> observation["instruction"]
    'open the top drawer and put the bowl inside'

    Observations: `image` and `wrist_image` (uint8 RGB), `state` (float32: gripper's position in metres, axis-angle in
    radians, the two fingers in metres) and `instruction`. Actions: 3 translations, 3 rotations in [-1, 1] (of the
    controller's largest step) and the gripper. `info["success"]` says whether the goal is reached, which also ends the
    episode.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": RATE_HZ}  # noqa: RUF012

    def __init__(
        self,
        suite: str = "libero_spatial",
        task: int | str = 0,
        image_size: int = 256,
        rendering: str = "published",
        orientation: str = "published",
        gripper: str = "openvla",
        settle: int = SETTLE,
        horizon: int | None = None,
        render_mode: str | None = "rgb_array",
    ) -> None:
        """Raises `ValueError` for options that there are not, and `DependencyNotInstalled` without LIBERO.

        suite: libero_spatial, libero_object, libero_goal, libero_10 or libero_90 (or another of the package's).
        task: its number in the suite, or its name.
        image_size: pixels a side of both pictures.
        rendering: "published" or "fast", see `gymnast_libero.rendering`.
        orientation: "published", "upright" or "raw", see `gymnast_libero.conventions.oriented`.
        gripper: "openvla" or "libero", see `gymnast_libero.conventions.to_libero`.
        settle: control steps without motion before the first observation.
        horizon: control steps after which an episode is cut off; None: the published length of the suite.
        """
        for name, value, known in (
            ("rendering", rendering, QUALITIES),
            ("orientation", orientation, ORIENTATIONS),
            ("gripper", gripper, GRIPPERS),
        ):
            if value not in known:
                raise ValueError(f"{name} is {value!r}; it must be one of {', '.join(known)}.")
        if image_size < 8 or settle < 0:
            raise ValueError(f"image_size is {image_size} and settle {settle}: at least 8 pixels and 0 steps.")
        self.horizon = horizon_of(suite, horizon)
        self.task = find_task(suite, task)
        self.render_mode = render_mode
        self._orientation, self._gripper, self._settle = orientation, gripper, settle
        self._steps = 0
        self._image: np.ndarray | None = None
        picture = spaces.Box(0, 255, (image_size, image_size, 3), np.uint8)
        self.observation_space = spaces.Dict(
            {
                **dict.fromkeys(CAMERAS, picture),
                "state": spaces.Box(-np.inf, np.inf, (READINGS,), np.float32),
                "instruction": spaces.Text(400, charset=string.printable),
            }
        )
        low, high = gripper_bounds(gripper)
        self.action_space = spaces.Box(
            np.array([-1.0] * 6 + [low], np.float32), np.array([1.0] * 6 + [high], np.float32), dtype=np.float32
        )
        self._simulation = Simulation(self.task, image_size, rendering)

    @property
    def instruction(self) -> str:
        return self.task.instruction

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Start from the initial state `options["state"]`, or else `seed` modulo their number (50), or a random one.

        Raises `ValueError` for a state that there is not.
        """
        super().reset(seed=seed)
        count = len(self.task.states_KN)
        state = (options or {}).get("state")
        if state is None:
            state = int(self.np_random.integers(count)) if seed is None else seed % count
        if isinstance(state, bool) or not isinstance(state, int) or not 0 <= state < count:
            raise ValueError(f"options.state is {state!r}; {self.task.name} has the initial states 0 to {count - 1}.")
        self._steps = 0
        shown = self._simulation.start(state, self._settle)
        return self._observation(shown), self._info(False) | {"initial_state": state}

    def step(self, action: np.ndarray) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        shown, success = self._simulation.step(to_libero(action, self._gripper))
        self._steps += 1
        truncated = not success and self._steps >= self.horizon
        return self._observation(shown), float(success), success, truncated, self._info(success)

    def render(self) -> np.ndarray | None:
        """The main camera's latest picture."""
        return self._image

    def close(self) -> None:
        self._simulation.close()

    def _observation(self, shown: Any) -> dict[str, Any]:
        pictures = {key: oriented(shown[key], self._orientation) for key in CAMERAS}
        self._image = pictures["image"]
        return {**pictures, "state": readings(shown), "instruction": self.instruction}

    def _info(self, success: bool) -> dict[str, Any]:
        return {"success": success, "suite": self.task.suite, "task": self.task.name}
