"""The simulator behind each task as a world model: where policies are tried without imagination."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from dataclasses import dataclass, field

import gymnasium
import numpy as np
import torch
from torch import Tensor

from gymnast_core.errors import DataError
from gymnast_core.interfaces import WorldModel
from gymnast_core.types import Task
from gymnast_environment.pool import EnvironmentPool


@dataclass
class LiveEpisode:
    """One environment under way."""

    pool_key: str
    environment: gymnasium.Env
    frame_HWC: np.ndarray
    """uint8 RGB, the latest."""
    outcome: float | None
    ended: bool = False
    """Terminated or truncated: frame and outcome stay as they are."""


@dataclass(eq=False)
class GymnasiumState:
    """B episodes under way. When it is dropped, its environments go back to the pool."""

    episodes: list[LiveEpisode] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.episodes)


class GymnasiumWorld(WorldModel):
    """Steps the Gymnasium environment that each task names; every task may name another one.

    >>> world = GymnasiumWorld(GymnasiumWorld.Config())
    >>> state = world.reset(tasks)                     # environment.reset(seed=task.seed, options=...)
    >>> frames_BLHWC = world.step(state, actions_BLA)
    >>> world.outcomes(state)                          # info["success"] of each episode's latest step
    [0.0, 1.0]

    Everything random comes from `task.seed`, so the generator of `reset` is not used.
    """

    @dataclass(frozen=True)
    class Config:
        image_key: str = "image"
        """Key of the camera image in dictionary observations; others: the image itself, or `render()`."""
        success_key: str = "success"
        """Key in `info` that holds success in [0, 1]."""
        check_first_frame: bool = True
        """Refuse tasks whose last context frame is not what their environment shows after `reset`."""
        first_frame_tolerance: float = 1.0
        """Mean absolute difference allowed there, in levels of 255: renderers round differently."""

    def __init__(self, config: GymnasiumWorld.Config | None = None):
        self.config = config if config is not None else self.Config()
        self.device = torch.device("cpu")
        self._pool = EnvironmentPool()

    def reset(self, tasks: Sequence[Task], *, generator: torch.Generator | None = None) -> GymnasiumState:
        """Start every task's environment from its own seed.

        Raises `DataError` for tasks without an environment or seed, or with another first frame than theirs.
        """
        for task in tasks:
            _check_task(task)
        state = GymnasiumState()
        weakref.finalize(state, _take_back, self._pool, state.episodes).atexit = False
        for task in tasks:
            state.episodes.append(self._start(task))
        return state

    def step(self, state: GymnasiumState, actions_BLA: Tensor) -> Tensor:
        actions = actions_BLA.detach().to("cpu", torch.float32).numpy()
        if actions.ndim != 3 or len(actions) != len(state) or not actions.shape[1]:
            raise DataError(
                f"Actions have shape {tuple(actions.shape)}; expected ({len(state)} episodes, "
                "at least 1 action, action dimensions)."
            )
        for episode in state.episodes:
            _check_width(episode.environment, actions.shape[2])
        frames = [self._run(episode, actions_LA) for episode, actions_LA in zip(state.episodes, actions, strict=True)]
        shapes = {frames_LHWC.shape for frames_LHWC in frames}
        if len(shapes) > 1:
            raise DataError(f"Environments of one batch show frames of different sizes: {sorted(shapes)}.")
        return torch.from_numpy(np.stack(frames))

    def outcomes(self, state: GymnasiumState) -> list[float | None]:
        return [episode.outcome for episode in state.episodes]

    def close(self) -> None:
        self._pool.close()

    def _start(self, task: Task) -> LiveEpisode:
        assert task.environment is not None
        key, environment = self._pool.lend(task.environment, task.environment_args)
        options = dict(task.environment_options) or None
        try:
            observation, info = environment.reset(seed=task.seed, options=options)
        except Exception as error:
            environment.close()
            raise DataError(
                f"Task {task.id!r}: {task.environment}.reset(seed={task.seed}, options={options}) failed: "
                f"{type(error).__name__}: {error}"
            ) from error
        try:
            frame_HWC = self._frame(environment, observation)
            if self.config.check_first_frame:
                self._check_first_frame(task, frame_HWC)
        except DataError:
            self._pool.take_back(key, environment)
            raise
        return LiveEpisode(key, environment, frame_HWC, self._outcome(info, None))

    def _run(self, episode: LiveEpisode, actions_LA: np.ndarray) -> np.ndarray:
        """Execute the actions in one environment: the L frames that follow, (L, H, W, C)."""
        frames = []
        for action_A in actions_LA:
            if not episode.ended:
                observation, _, terminated, truncated, info = episode.environment.step(action_A)
                episode.frame_HWC = self._frame(episode.environment, observation)
                episode.outcome = self._outcome(info, episode.outcome)
                episode.ended = bool(terminated or truncated)
            frames.append(episode.frame_HWC)
        return np.stack(frames)

    def _frame(self, environment: gymnasium.Env, observation: object) -> np.ndarray:
        if isinstance(observation, dict):
            observation = observation.get(self.config.image_key)
        for candidate in (observation, None):
            image = candidate if candidate is not None else environment.render()
            if isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.ndim == 3:
                return image[..., :3].copy()  # some environments reuse the buffer for the next frame
        raise DataError(
            f"Environment {_name(environment)} gave no uint8 RGB image: not as observation, not under the "
            f"key {self.config.image_key!r}, not from render(). Set world_model.args.image_key, or give the "
            "task environment_args {render_mode: rgb_array}."
        )

    def _outcome(self, info: dict[str, object], before: float | None) -> float | None:
        value = info.get(self.config.success_key)
        if value is None:
            return before
        return min(max(float(value), 0.0), 1.0)  # type: ignore[arg-type]

    def _check_first_frame(self, task: Task, frame_HWC: np.ndarray) -> None:
        expected_HWC = task.frames_THWC[-1].cpu().numpy()
        if expected_HWC.shape != frame_HWC.shape:
            difference = f"shape {frame_HWC.shape} instead of {expected_HWC.shape}"
        else:
            levels = float(np.abs(frame_HWC.astype(np.int16) - expected_HWC).mean())
            if levels <= self.config.first_frame_tolerance:
                return
            difference = f"a mean difference of {levels:.1f} levels"
        raise DataError(
            f"Task {task.id!r} starts from a frame that {task.environment} does not show after "
            f"reset(seed={task.seed}): {difference}. Regenerate the tasks, or set "
            "world_model.args.check_first_frame=false to start from the environment's own frame."
        )


def _check_task(task: Task) -> None:
    if task.environment is None or task.seed is None:
        missing = "environment" if task.environment is None else "seed"
        raise DataError(
            f"Task {task.id!r} ({task.instruction!r}) has no {missing}, so no simulator can be "
            "started for it. Use tasks that name an environment and a seed, or another world model."
        )


def _check_width(environment: gymnasium.Env, width: int) -> None:
    space = environment.action_space
    if not isinstance(space, gymnasium.spaces.Box) or space.shape != (width,):
        raise DataError(
            f"Actions have {width} dimensions; environment {_name(environment)} takes {space}. "
            "Choose a policy and tasks of the same robot."
        )


def _name(environment: gymnasium.Env) -> str:
    return environment.spec.id if environment.spec is not None else type(environment.unwrapped).__name__


def _take_back(pool: EnvironmentPool, episodes: list[LiveEpisode]) -> None:
    for episode in episodes:
        pool.take_back(episode.pool_key, episode.environment)
