"""One LIBERO scene: built once, put into an initial state as published evaluations do, stepped, looked at."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import numpy as np

from gymnast_libero.conventions import WAIT, axis_angle
from gymnast_libero.memory import forget_description, forget_pixels, forget_sources, trim
from gymnast_libero.rendering import Cameras, texture_pixels
from gymnast_libero.suites import LiberoTask, import_libero

CAMERAS = {"image": "agentview", "wrist_image": "robot0_eye_in_hand"}
"""Key of an observation -> the camera's name in LIBERO."""
RATE_HZ = 20
"""Control steps a second."""


class Simulation:
    """Raises what robosuite and MuJoCo raise.

    Robosuite takes pictures and readings at a fixed moment of a control step, a few milliseconds before its end. The
    demonstrations and published evaluations have them from then, so the cameras here are robosuite observables, too.
    """

    def __init__(self, task: LiberoTask, size: int, quality: str) -> None:
        self._task = task
        self._cameras: Cameras | None = None
        self._blind = True
        forget_sources()
        self._environment = _build(task.bddl_file)
        forget_description()
        self._model = self._environment.sim.model._model
        self._cameras = Cameras(self._model, self._environment.sim.data._data, size, quality)
        forget_pixels(texture_pixels(self._model))
        trim()
        self._observe(size)

    def start(self, state: int, settle: int) -> Mapping[str, np.ndarray]:
        """The observation in an initial state, after `settle` control steps without motion."""
        self._blind = settle > 0
        # Furniture is placed by NumPy's global generator, a few millimetres about, and is no part of a state.
        before = np.random.get_state()
        np.random.seed(state)
        for robot in self._environment.robots:
            # What the gripper was last told is all that robosuite's soft reset forgets to forget.
            robot.gripper.current_action = np.zeros_like(robot.gripper.current_action)
        try:
            self._environment.reset()
        finally:
            np.random.set_state(before)
        shown = self._environment.set_init_state(self._task.states_KN[state])
        for remaining in range(settle, 0, -1):
            self._blind = remaining > 1
            shown, *_ = self._environment.step(WAIT)
        return shown

    def step(self, action_7: np.ndarray) -> tuple[Mapping[str, np.ndarray], bool]:
        """One control step: what is shown, and whether the goal is reached."""
        shown, _, success, _ = self._environment.step(action_7)
        return shown, bool(success)

    def close(self) -> None:
        cameras, self._cameras = self._cameras, None
        if cameras is not None:
            cameras.close()
            self._environment.close()

    def _observe(self, size: int) -> None:
        from robosuite.utils.observables import Observable, sensor

        for key, camera in CAMERAS.items():

            @sensor(modality="image")
            def take(_: Any, camera: str = camera) -> np.ndarray:
                # Nobody looks while objects come to rest, and when a scene is first put together.
                if self._cameras is None or self._blind:
                    return np.zeros((size, size, 3), np.uint8)
                return self._cameras.picture(camera)

            self._environment.env.add_observable(Observable(name=key, sensor=take, sampling_rate=RATE_HZ))


def readings(shown: Mapping[str, np.ndarray]) -> np.ndarray:
    """The eight numbers that published policies read, float32: gripper's position (metres), axis and angle (radians),
    positions of the two fingers (metres)."""
    rotation = axis_angle(shown["robot0_eef_quat"])
    return np.concatenate([shown["robot0_eef_pos"], rotation, shown["robot0_gripper_qpos"]]).astype(np.float32)


def _build(bddl_file: str) -> Any:
    import_libero()
    # Robosuite advises on standard error to write a file of private settings.
    logging.getLogger("robosuite_logs").setLevel(logging.ERROR)
    from libero.libero.envs.env_wrapper import ControlEnv

    return ControlEnv(
        bddl_file_name=bddl_file,
        use_camera_obs=False,
        has_offscreen_renderer=False,
        # A hard reset compiles the scene anew, for many seconds, and shows the same: an initial state is complete.
        hard_reset=False,
        ignore_done=True,
        control_freq=RATE_HZ,
    )
