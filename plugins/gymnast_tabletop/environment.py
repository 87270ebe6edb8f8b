"""The tabletop as a Gymnasium environment, `gymnast/Tabletop-v0`."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from gymnast_core.errors import ConfigError
from gymnast_tabletop.experts import Expert
from gymnast_tabletop.gap import Gap, read_gap
from gymnast_tabletop.geometry import CAMERAS
from gymnast_tabletop.instructions import (
    Goal,
    block_index,
    draw_instruction,
    feasible_goals,
    outcomes,
    parse,
    start_scene,
)
from gymnast_tabletop.scene import MAX_DELTA, Scene, check_n_blocks
from gymnast_tabletop.simulation import Tabletop
from gymnast_tabletop.splits import SPLITS

_MAX_LENGTH = 128
_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ ,.")


class TabletopEnvironment(gymnasium.Env[dict[str, Any], NDArray[np.float32]]):
    """Push the named block: sparse reward, judged once, when the horizon ends.

    Observation: `image`, uint8 (image_size, image_size, 3), and `instruction`, text. Action: displacement of
    the end-effector (dx, dy), metres, x to the right of the image, y to its top, each in ±0.02. The reward
    is 1 on the last step if the instruction is then fulfilled (`instructions.successes`), else 0;
    `info["success"]` says after each step whether it would be now, and `info["outcomes"]` the same of every
    instruction about a block on the table. Episodes end by truncation after `horizon` steps, never earlier.

    `reset(seed=s)` shows the scene of `s`, always the same. `options={"instruction": ...}` gives the
    instruction, in any of the known wordings; otherwise the seed draws one among the feasible training
    instructions. Without a seed the environment draws one itself from the training split. `gap`
    (see `gap.Gap`) gives the table another camera, colours or friction. With `wrist`, there is also `wrist_image`, of
    the same size: what a camera sees that moves with the end-effector, straight above it, 1.6 times as close.
    """

    # No OpenGL: many of them, and everything else, run in one process.
    metadata = {"render_modes": ["rgb_array"], "render_fps": 10, "gymnast_shared_process": True}  # noqa: RUF012

    def __init__(
        self,
        *,
        image_size: int = 64,
        n_blocks: int = 2,
        horizon: int = 16,
        gap: Gap | dict[str, Any] | None = None,
        wrist: bool = False,
        render_mode: str | None = None,
    ) -> None:
        check_n_blocks(n_blocks)
        for name, value in (("image_size", image_size), ("horizon", horizon)):
            if value < 1:
                raise ConfigError(f"{name} is {value}; it must be at least 1.")
        self.render_mode = render_mode
        self.horizon = horizon
        self._images = dict(zip(("image", "wrist_image") if wrist else ("image",), CAMERAS, strict=False))
        self.observation_space = spaces.Dict(
            {
                **{name: spaces.Box(0, 255, (image_size, image_size, 3), np.uint8) for name in self._images},
                "instruction": spaces.Text(_MAX_LENGTH, charset=_CHARACTERS),
            }
        )
        self.action_space = spaces.Box(-MAX_DELTA, MAX_DELTA, (2,), np.float32)
        self._table = Tabletop(n_blocks=n_blocks, image_size=image_size, gap=read_gap(gap))

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Start an episode. Raises `ConfigError` for an unknown instruction or a colour that is not on the
        table."""
        super().reset(seed=seed)
        if seed is None:
            seed = int(self.np_random.integers(len(SPLITS["training"])))
        scene = start_scene(seed, self._table.n_blocks)
        instruction = str((options or {}).get("instruction") or draw_instruction(seed, scene))
        self._goal = parse(instruction)
        block_index(self._goal, scene.colours)
        self._scene, self._instruction, self._steps = scene, instruction, 0
        self._seed = seed
        self._experts: dict[Goal, Expert] = {}
        self._table.reset(scene)
        return self._observation(), self._info()

    def step(self, action: NDArray[np.float32]) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        """Move by `action`, metres; values beyond the limits count as the limits."""
        self._table.step(np.asarray(action, np.float64))
        self._steps += 1
        info, over = self._info(), self._steps >= self.horizon
        return self._observation(), float(over and info["success"]), False, over, info

    def render(self) -> NDArray[np.uint8] | None:
        """The camera's view when `render_mode` is "rgb_array"."""
        return self._table.render() if self.render_mode == "rgb_array" else None

    def expert_action(self) -> NDArray[np.float32]:
        """What a scripted expert does next to fulfil the instruction: metres, in the limits."""
        return self._advice(self._goal)

    def other_expert_action(self) -> NDArray[np.float32]:
        """What it does to fulfil another instruction, drawn by the seed; the own one where no other is feasible."""
        others = [goal for goal in feasible_goals(self._scene) if goal != self._goal]
        drawn = np.random.default_rng([self._seed, 78]).integers(len(others)) if others else 0
        return self._advice(others[drawn] if others else self._goal)

    @property
    def state(self) -> NDArray[np.float64]:
        """The simulation's state vector (see `simulation`), for experts and measurements."""
        return self._table.state

    @property
    def scene(self) -> Scene:
        """The `Scene` in which the episode started."""
        return self._scene

    def _observation(self) -> dict[str, Any]:
        images = {name: self._table.render(camera) for name, camera in self._images.items()}
        return {**images, "instruction": self._instruction}

    def _info(self) -> dict[str, Any]:
        done = outcomes(self._scene.colours, self._scene.state, self._table.state)
        return {"success": done[self._goal], "outcomes": {goal.instruction: value for goal, value in done.items()}}

    def _advice(self, goal: Goal) -> NDArray[np.float32]:
        expert = self._experts.setdefault(goal, Expert(goal, self._scene))
        return expert(self._table.state).astype(np.float32)


def other_expert(environment: gymnasium.Env, observation: object) -> NDArray[np.float32]:
    """An expert that fulfils another instruction than the one that is asked for: play that is no failure of skill."""
    return environment.unwrapped.other_expert_action()  # type: ignore[attr-defined]
