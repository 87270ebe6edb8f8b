"""`gymnast/Simpler-v0`: one of SIMPLER's WidowX tasks as a Gymnasium environment. Nothing here needs gymnast or torch
to be imported."""

from __future__ import annotations

import string
from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from gymnast_simpler.bridge import LARGEST_M, to_maniskill, to_state
from gymnast_simpler.twins import TWINS, check_assets

CAMERA = "3rd_view_camera"
SIZE = (480, 640)
"""Height and width of ManiSkill's picture, as Bridge's camera takes it."""
RATE_HZ = 5
READINGS = 7
BACKENDS = ("cpu", "gpu")
STILL = np.array([0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0])
"""Bridge's action that moves nothing, gripper open."""
QUARTER_TURN = float(np.pi / 2)
"""Largest angle an action may ask for; ManiSkill clips there."""


class SimplerEnvironment(gymnasium.Env):
    """A digital twin of a Bridge task (SIMPLER, arXiv 2405.05941, in ManiSkill 3) with its starts.

    >>> environment = gymnasium.make("gymnast_simpler:gymnast/Simpler-v0", task="carrot-on-plate")
    >>> observation, info = environment.reset(seed=7)        # start 7 of 24; 31 is the same
    >>> observation["instruction"]
    'put carrot on plate'

    Observations: `image` (uint8 RGB, 480x640; published policies take it squeezed to a square), `state` (float32,
    Bridge's 7 numbers) and `instruction`. Actions are Bridge's: translation (metres), roll, pitch and yaw (radians),
    gripper (1 open, 0 closed). `info` has `success`, which ends the episode, and partial credit on the way: `grasped`
    and `source_on_target` (now), `ever_grasped`, `held` (for five steps in a row, at any time), and `partial_credit`,
    which is 1 for success, 0.5 once the object was held so, else 0.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": RATE_HZ}  # noqa: RUF012

    def __init__(
        self,
        task: str = "carrot-on-plate",
        render_backend: str = "cpu",
        horizon: int | None = None,
        render_mode: str | None = "rgb_array",
    ) -> None:
        """Raises `ValueError` for what there is not, `DependencyNotInstalled` without ManiSkill, `FileNotFoundError`
        without its assets.

        task: a key of `gymnast_simpler.twins.TWINS`.
        render_backend: "cpu" (Vulkan in software: Mesa 24.3 or later) or "gpu".
        horizon: control steps after which an episode is cut off; None: SIMPLER's.
        """
        if task not in TWINS:
            raise ValueError(f"There is no task {task!r}; there are {', '.join(TWINS)}.")
        if render_backend not in BACKENDS:
            raise ValueError(f"render_backend is {render_backend!r}; it must be one of {', '.join(BACKENDS)}.")
        if horizon is not None and horizon < 1:
            raise ValueError(f"horizon is {horizon}; an episode has at least one control step.")
        check_assets()
        self.task, self.render_mode = task, render_mode
        self.horizon = TWINS[task].horizon if horizon is None else horizon
        self._steps = 0
        self._image: np.ndarray | None = None
        made: Any = gymnasium.make(
            TWINS[task].maniskill_id,
            num_envs=1,
            obs_mode="rgb+segmentation",
            sim_backend="physx_cpu",
            render_backend=render_backend,
        )
        self._twin: Any = made.unwrapped  # without the time limit, which counts what `reset` does, too
        self.starts = len(self._twin.xyz_configs) * len(self._twin.quat_configs)
        """Initial states: places of the objects times their turns."""
        self.instruction: str = self._instruction()
        self.observation_space = spaces.Dict(
            {
                "image": spaces.Box(0, 255, (*SIZE, 3), np.uint8),
                "state": spaces.Box(-np.inf, np.inf, (READINGS,), np.float32),
                "instruction": spaces.Text(400, charset=string.printable),
            }
        )
        low = np.array([-LARGEST_M] * 3 + [-QUARTER_TURN] * 3 + [0.0], np.float32)
        high = np.array([LARGEST_M] * 3 + [QUARTER_TURN] * 3 + [1.0], np.float32)
        self.action_space = spaces.Box(low, high, dtype=np.float32)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Start from the initial state `options["state"]`, or else `seed` modulo their number, or a random one.

        Raises `ValueError` for a state that there is not.
        """
        super().reset(seed=seed)
        state = (options or {}).get("state")
        if state is None:
            state = int(self.np_random.integers(self.starts)) if seed is None else seed % self.starts
        if isinstance(state, bool) or not isinstance(state, int) or not 0 <= state < self.starts:
            raise ValueError(f"options.state is {state!r}; {self.task} has the initial states 0 to {self.starts - 1}.")
        self._steps = 0
        # While objects come to rest, the arm's motors still go for the last episode's last target, and may push them
        # about. Standing still once gives them a target out of the way; then the start depends on nothing before it.
        self._begin(state)
        self._twin.step(to_maniskill(STILL))
        shown = self._begin(state)
        info = {"success": False, "grasped": False, "source_on_target": False, "ever_grasped": False, "held": False}
        return self._observation(shown), {**info, "partial_credit": 0.0, "initial_state": state}

    def step(self, action: np.ndarray) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        shown, _, _, _, told = self._twin.step(to_maniskill(action))
        self._steps += 1
        source = self._twin.objs[self._twin.source_obj_name]
        info = _told(told, bool(self._twin.agent.is_grasping(source)[0]))
        success = info["success"]
        truncated = not success and self._steps >= self.horizon
        return self._observation(shown), float(success), success, truncated, info

    def render(self) -> np.ndarray | None:
        """The latest picture."""
        return self._image

    def close(self) -> None:
        self._twin.close()

    def _begin(self, state: int) -> Mapping[str, Any]:
        shown, _ = self._twin.reset(seed=state, options={"episode_id": state})
        return shown

    def _observation(self, shown: Mapping[str, Any]) -> dict[str, Any]:
        self._image = np.array(shown["sensor_data"][CAMERA]["rgb"][0].cpu().numpy(), np.uint8)
        return {"image": self._image, "state": self._state(), "instruction": self.instruction}

    def _state(self) -> np.ndarray:
        robot = self._twin.agent.robot
        pose = robot.links_map["base_link"].pose.inv() * robot.links_map["ee_gripper_link"].pose
        finger = float(robot.get_qpos()[0, -2:].mean())
        return to_state(pose.p[0].cpu().numpy(), pose.q[0].cpu().numpy(), finger)

    def _instruction(self) -> str:
        said = self._twin.get_language_instruction()
        return said if isinstance(said, str) else said[0]


def _told(told: Mapping[str, Any], grasped: bool) -> dict[str, Any]:
    """ManiSkill's batched tensors as plain values, under names that say what they are."""
    success, held = bool(told["success"][0]), bool(told["consecutive_grasp"][0])
    return {
        "success": success,
        "grasped": grasped,
        "source_on_target": bool(told["src_on_target"][0]),
        "ever_grasped": bool(told["is_src_obj_grasped"][0]),
        "held": held,
        "partial_credit": 1.0 if success else 0.5 if held else 0.0,
    }
