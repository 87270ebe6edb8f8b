"""Meta-World as a Gymnasium environment with pictures, instructions, seeds that mean something, and experts."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from gymnast_metaworld.camera import Camera, Renderer, read_camera  # First: it says how MuJoCo draws.
from gymnast_metaworld.instructions import INSTRUCTIONS, suggest

# isort: split
import mujoco
from metaworld.env_dict import ALL_V3_ENVIRONMENTS
from metaworld.policies import ENV_POLICY_MAP

LONGEST = 500
"""Simulator steps after which Meta-World itself refuses to go on."""
QUALITIES = ("fast", "full")
_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 ,.'-")
_WRIST_CAMERA = "gripperPOV"


class MetaWorld(gymnasium.Env[dict[str, Any], NDArray[np.float32]]):
    """One of Meta-World's 50 tasks on a Sawyer arm; sparse or dense use is up to the caller.

    Observation: `image`, uint8 (image_size, image_size, 3); with `wrist`, `wrist_image` of the same shape; `proprio`,
    float32 (4,): the hand's position, metres, and the gripper's opening, 0 shut to 1 open; `instruction`, text.
    Action, float32 (4,), each in [-1, 1]: the hand's displacement along x, y, z and the gripper's torque (1 shuts it).
    It is held for `action_repeat` simulator steps of 12.5 ms, of at most 1 cm each. Reward: Meta-World's dense one,
    summed over these. An episode never terminates; it is truncated after `horizon` actions.

    `info` says whether Meta-World calls the state after the action a success (`success`), whether it did so after any
    simulator step since the reset (`success_any`, how Meta-World's own evaluation counts), and where the object, the
    gripper and the goal appear in the image (`points`, float32 (3, 2), x right, y down, [0, 1] inside of it).

    `reset(seed=s)` shows the scene of `s`, pixel by pixel the same in every process on one machine with one renderer.
    Without a seed the environment draws one. `options={"instruction": ...}` is shown instead of
    the task's own words and changes nothing else.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 16}  # noqa: RUF012 (Gymnasium declares it so)

    def __init__(
        self,
        *,
        task: str = "door-open",
        image_size: int = 64,
        camera: str | Camera | Mapping[str, Any] = "front",
        wrist: bool = False,
        action_repeat: int = 5,
        horizon: int = 24,
        quality: str = "fast",
        wording: int | None = 0,
        render_mode: str | None = None,
    ) -> None:
        """Raises `ValueError` for an argument outside of its range, naming it.

        Args:
            task: one of `instructions.TASKS`, e.g. "door-open".
            image_size: pixels of a side, 8 to 1024.
            camera: a name of `camera.CAMERAS`, or {position, target, fov}.
            wrist: also show Meta-World's camera at the gripper.
            action_repeat: simulator steps an action.
            horizon: actions an episode; `action_repeat * horizon` is at most 500.
            quality: "fast" draws without shadows and anti-aliasing, 10 to 20 times as fast as "full" on a CPU. They
                differ in pixels: it belongs to what a policy was trained on.
            wording: which of the task's instructions; None draws one by the seed.
            render_mode: "rgb_array" or None.
        """
        _check(task, image_size, action_repeat, horizon, quality, wording)
        self.task, self.horizon, self.action_repeat = task, horizon, action_repeat
        self.render_mode, self._size, self._quality, self._wording = render_mode, image_size, quality, wording
        self.camera = read_camera(camera)
        self._view = self.camera.mujoco_camera()
        picture = spaces.Box(0, 255, (image_size, image_size, 3), np.uint8)
        self.observation_space = spaces.Dict(
            {
                "image": picture,
                **({"wrist_image": picture} if wrist else {}),
                "proprio": spaces.Box(-np.inf, np.inf, (4,), np.float32),
                "instruction": spaces.Text(256, charset=_CHARACTERS),
            }
        )
        self.action_space = spaces.Box(-1.0, 1.0, (4,), np.float32)
        self._wrist = wrist
        self._simulation = _simulation(task, image_size, quality, self.camera.fov)
        self._expert = ENV_POLICY_MAP[f"{task}-v3"]()
        self._renderer: Renderer | None = None
        self._instruction = ""

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Start the episode of `seed`. Raises `ValueError` for an instruction that the observation space refuses."""
        super().reset(seed=seed)
        scene_seed = seed if seed is not None else int(self.np_random.integers(2**31))
        # Meta-World ignores the seed of `reset`; and what an earlier episode left in the simulator must not matter.
        self._simulation.seed(scene_seed)
        mujoco.mj_resetData(self._simulation.model, self._simulation.data)
        self._simulation.reset()
        # Meta-World puts windows, drawers and others in their place last, and the simulator knows of it only after its
        # next step: without this, the first picture and the first state have them where they are not.
        mujoco.mj_forward(self._simulation.model, self._simulation.data)
        self._state = _first_state(self._simulation)
        self._steps, self._success, self._success_any = 0, False, False
        words = INSTRUCTIONS[self.task]
        wording = self._wording if self._wording is not None else scene_seed % len(words)
        self._instruction = str((options or {}).get("instruction") or words[wording])
        if not self.observation_space["instruction"].contains(self._instruction):
            raise ValueError(
                f"The instruction {self._instruction!r} is too long, or not of letters, digits, spaces and ,.'- only."
            )
        return self._observation(), self._info()

    def step(self, action: NDArray[np.floating]) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        """Hold `action` (values beyond ±1 count as ±1) for `action_repeat` simulator steps."""
        reward = self.advance(action)
        return self._observation(), reward, False, self._steps >= self.horizon, self._info()

    def advance(self, action: NDArray[np.floating]) -> float:
        """The same as `step` without a picture, which takes most of its time; returns the reward."""
        held = np.clip(np.asarray(action, np.float32), -1.0, 1.0)
        if held.shape != (4,) or not np.isfinite(held).all():
            raise ValueError(f"An action has four finite numbers, got {action!r}.")
        total = 0.0
        for _ in range(self.action_repeat):
            self._state, reward, _, _, info = self._simulation.step(held)
            total += float(reward)
            self._success = bool(info["success"])
            self._success_any |= self._success
        self._steps += 1
        return total

    def expert_action(self) -> NDArray[np.float32]:
        """What Meta-World's scripted expert of this task does now, float32 (4,) in [-1, 1]; it sees the true state."""
        with warnings.catch_warnings():  # It warns whenever it asks for more than ±1.
            warnings.simplefilter("ignore")
            action = self._expert.get_action(self._state)
        return np.clip(np.asarray(action, np.float32), -1.0, 1.0)

    def render(self) -> NDArray[np.uint8] | None:
        """The camera's picture when `render_mode` is "rgb_array"."""
        return self._picture(self._view) if self.render_mode == "rgb_array" else None

    def close(self) -> None:
        """Free the renderer."""
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None
        super().close()

    @property
    def state(self) -> NDArray[np.float64]:
        """Meta-World's own observation, (39,), with the goal: what its experts and its rewards see."""
        return self._state.copy()

    @property
    def success_any(self) -> bool:
        """Whether Meta-World called any state since the reset a success."""
        return self._success_any

    @property
    def instruction(self) -> str:
        """The words of this episode."""
        return self._instruction

    def _picture(self, camera: mujoco.MjvCamera) -> NDArray[np.uint8]:
        if self._renderer is None:
            self._renderer = Renderer(self._simulation.model, self._size)
        data = self._simulation.data
        kept = data.site_xpos.copy()
        # Meta-World puts the marker where the goal is only in some tasks, and in the others not for the picture.
        for name, position in self._simulation._target_site_config:
            data.site(name).xpos = position[:3]
        picture = self._renderer.render(data, camera)
        data.site_xpos[:] = kept
        return picture

    def _observation(self) -> dict[str, Any]:
        observation: dict[str, Any] = {"image": self._picture(self._view)}
        if self._wrist:
            camera = mujoco.MjvCamera()
            camera.type = mujoco.mjtCamera.mjCAMERA_FIXED
            camera.fixedcamid = self._simulation.model.camera(_WRIST_CAMERA).id
            observation["wrist_image"] = self._picture(camera)
        observation["proprio"] = self._state[:4].astype(np.float32)
        observation["instruction"] = self._instruction
        return observation

    def _info(self) -> dict[str, Any]:
        gripper, thing, goal = self._simulation.tcp_center, self._state[4:7], self._state[36:39]
        points = self.camera.project(np.stack([thing, gripper, goal]))
        return {"success": self._success, "success_any": self._success_any, "points": points}


def _check(task: str, image_size: int, action_repeat: int, horizon: int, quality: str, wording: int | None) -> None:
    if task not in INSTRUCTIONS:
        raise ValueError(suggest(task))
    if not 8 <= image_size <= 1024:
        raise ValueError(f"image_size is {image_size}; it must be from 8 to 1024 pixels.")
    if action_repeat < 1 or horizon < 1 or action_repeat * horizon > LONGEST:
        raise ValueError(
            f"action_repeat is {action_repeat} and horizon {horizon}; both must be at least 1 and their product at "
            f"most {LONGEST}, where Meta-World's own episodes end."
        )
    if quality not in QUALITIES:
        raise ValueError(f"quality is {quality!r}; choose from {', '.join(QUALITIES)}.")
    if wording is not None and not 0 <= wording < len(INSTRUCTIONS[task]):
        raise ValueError(
            f"wording is {wording}; {task} has {len(INSTRUCTIONS[task])} wordings, counted from 0, or None."
        )


def _first_state(simulation: Any) -> NDArray[np.float64]:
    """Meta-World's observation right after a reset: what is now, the same as what was before, and the goal."""
    now = simulation._get_curr_obs_combined_no_goal()
    simulation._prev_obs = now
    return np.hstack([now, now, simulation._get_pos_goal()])


def _simulation(task: str, image_size: int, quality: str, fov: float) -> Any:
    """Meta-World's environment with visible goals, seeded scenes, and drawing set up before any renderer exists."""
    simulation = ALL_V3_ENVIRONMENTS[f"{task}-v3"]()
    simulation._partially_observable = False  # Else the goal reads as zeros, and experts go there.
    simulation.__dict__.pop("sawyer_observation_space", None)  # Cached with the goal's limits at zero, which clip it.
    simulation._freeze_rand_vec = False
    simulation.seeded_rand_vec = True
    simulation._set_task_called = True
    visual = simulation.model.vis
    visual.global_.fovy = fov
    visual.global_.offwidth = visual.global_.offheight = image_size
    if quality == "fast":
        visual.quality.shadowsize = 0
        visual.quality.offsamples = 0
    return simulation
