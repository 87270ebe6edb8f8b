"""The simulator behind each task as a world model: where policies are tried without imagination."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from dataclasses import dataclass, field

import gymnasium
import numpy as np
import torch
from torch import Tensor

from gymnast_core.config.ranges import Count, NotNegative
from gymnast_core.errors import ConfigError, DataError, unknown_name
from gymnast_core.interfaces import WorldModel
from gymnast_core.types import EnvironmentStart, Offers, Step, Task
from gymnast_environment.pool import EnvironmentPool
from gymnast_environment.senses import Sensed, Senses


@dataclass
class LiveEpisode:
    """One environment under way."""

    pool_key: str
    environment: gymnasium.Env
    sensed: Sensed
    """What it showed last."""
    outcome: float | None
    ended: bool = False
    """Terminated or truncated: what it shows and its outcome stay as they are."""


@dataclass(eq=False)
class GymnasiumState:
    """B episodes under way. When it is dropped, its environments go back to the pool."""

    episodes: list[LiveEpisode] = field(default_factory=list)


class GymnasiumWorld(WorldModel):
    """Steps the Gymnasium environment that each task names; every task may name another one.

    >>> world = GymnasiumWorld(GymnasiumWorld.Config())
    >>> state = world.reset(tasks)                     # environment.reset(seed=task.start.seed, options=...)
    >>> step = world.step(state, actions_BLA)
    >>> step.outcome_BL[:, -1]                         # info["success"] of each episode's latest step
    tensor([0., 1.])

    Everything random comes from the task's seed, so the generator of `reset` is not used.
    """

    api_version = 2

    @dataclass(frozen=True)
    class Config:
        image_key: str = "image"
        """Key of the camera image in dictionary observations; others: the image itself, or `render()`."""
        cameras: list[str] = field(default_factory=list)
        """Keys of several camera images in dictionary observations, the main camera first; each names its camera.
        Empty: the one image under `image_key`, whatever the task calls it."""
        proprio_key: str | None = None
        """Key of the proprioceptive readings in dictionary observations; null: none are read."""
        proprio_dim: Count | None = None
        """Number of those readings; needed with `proprio_key`, so that it is known before an environment is made."""
        success_key: str = "success"
        """Key in `info` that holds success in [0, 1]."""
        check_first_frame: bool = True
        """Refuse tasks whose last context frame is not what their environment shows after `reset`."""
        first_frame_tolerance: NotNegative = 1.0
        """Mean absolute difference allowed there, in levels of 255: renderers round differently."""

    def __init__(self, config: GymnasiumWorld.Config | None = None):
        self.config = config if config is not None else self.Config()
        self.device = torch.device("cpu")
        self._pool = EnvironmentPool()
        self._senses = _senses(self.config)

    @classmethod
    def offers(cls, config: GymnasiumWorld.Config) -> Offers:
        senses = _senses(config)
        return Offers(senses.cameras or 1, senses.proprio_dim)

    def reset(self, tasks: Sequence[Task], *, generator: torch.Generator | None = None) -> GymnasiumState:
        """Start every task's environment from its own seed.

        Raises `DataError` for tasks without an environment, or with another first frame than theirs.
        """
        starts = [_start_of(task) for task in tasks]
        state = GymnasiumState()
        weakref.finalize(state, _take_back, self._pool, state.episodes).atexit = False
        for task, start in zip(tasks, starts, strict=True):
            state.episodes.append(self._start(task, start))
        return state

    def step(self, state: GymnasiumState, actions_BLA: Tensor) -> Step:
        actions = actions_BLA.detach().to("cpu", torch.float32).numpy()
        count = len(state.episodes)
        if actions.ndim != 3 or len(actions) != count or not actions.shape[1]:
            raise DataError(
                f"Actions have shape {tuple(actions.shape)}; expected ({count} episodes, "
                "at least 1 action, action dimensions)."
            )
        for episode in state.episodes:
            _check_width(episode.environment, actions.shape[2])
        shown = [self._run(episode, actions_LA) for episode, actions_LA in zip(state.episodes, actions, strict=True)]
        shapes = {frames_LVHWC.shape for frames_LVHWC, _, _ in shown}
        if len(shapes) > 1:
            raise DataError(f"Environments of one batch show frames of different sizes: {sorted(shapes)}.")
        readings = [proprio_LP for _, proprio_LP, _ in shown if proprio_LP is not None]
        return Step(
            torch.from_numpy(np.stack([frames_LVHWC for frames_LVHWC, _, _ in shown])),
            torch.from_numpy(np.stack(readings)) if readings else None,
            torch.tensor([outcome_L for _, _, outcome_L in shown], dtype=torch.float32),
        )

    def close(self) -> None:
        self._pool.close()

    def _start(self, task: Task, start: EnvironmentStart) -> LiveEpisode:
        key, environment = self._pool.lend(start.id, start.args)
        options = dict(start.options) or None
        try:
            observation, info = environment.reset(seed=start.seed, options=options)
        except Exception as error:
            environment.close()
            raise DataError(
                f"Task {task.id!r}: {start.id}.reset(seed={start.seed}, options={options}) failed: "
                f"{type(error).__name__}: {error}"
            ) from error
        try:
            sensed = self._senses.read(environment, observation)
            if self.config.check_first_frame:
                self._check_first_frame(task, start, sensed.frames_VHWC)
        except DataError:
            self._pool.take_back(key, environment)
            raise
        return LiveEpisode(key, environment, sensed, self._outcome(info, None))

    def _run(self, episode: LiveEpisode, actions_LA: np.ndarray) -> tuple[np.ndarray, np.ndarray | None, list[float]]:
        """Execute the actions in one environment: frames (L, V, H, W, C), readings (L, P) and outcomes that follow."""
        seen: list[Sensed] = []
        outcomes = []
        for action_A in actions_LA:
            if not episode.ended:
                observation, _, terminated, truncated, info = episode.environment.step(action_A)
                episode.sensed = self._senses.read(episode.environment, observation)
                episode.outcome = self._outcome(info, episode.outcome)
                episode.ended = bool(terminated or truncated)
            seen.append(episode.sensed)
            outcomes.append(float("nan") if episode.outcome is None else episode.outcome)
        readings = [sensed.proprio_P for sensed in seen if sensed.proprio_P is not None]
        frames_LVHWC = np.stack([sensed.frames_VHWC for sensed in seen])
        return frames_LVHWC, np.stack(readings) if readings else None, outcomes

    def _outcome(self, info: dict[str, object], before: float | None) -> float | None:
        value = info.get(self.config.success_key)
        if value is None:
            return before
        return min(max(float(value), 0.0), 1.0)  # type: ignore[arg-type]

    def _check_first_frame(self, task: Task, start: EnvironmentStart, frames_VHWC: np.ndarray) -> None:
        for name in self._senses.cameras:
            if name not in task.cameras:
                raise DataError(f"Task {task.id!r}: {unknown_name('camera', name, task.cameras)}")
        places = [task.cameras.index(name) for name in self._senses.cameras] or [0]
        expected_VHWC = task.frames_TVHWC[-1][places].cpu().numpy()
        if expected_VHWC.shape != frames_VHWC.shape:
            difference = f"shape {frames_VHWC.shape[1:]} instead of {expected_VHWC.shape[1:]}"
        else:
            levels_V = np.abs(frames_VHWC.astype(np.int16) - expected_VHWC).mean((1, 2, 3))
            if levels_V.max() <= self.config.first_frame_tolerance:
                return
            difference = f"a mean difference of {levels_V.max():.1f} levels"
        raise DataError(
            f"Task {task.id!r} starts from a frame that {start.id} does not show after "
            f"reset(seed={start.seed}): {difference}. Regenerate the tasks, or set "
            "world_model.args.check_first_frame=false to start from the environment's own frame."
        )


def _senses(config: GymnasiumWorld.Config) -> Senses:
    if (config.proprio_key is None) != (config.proprio_dim is None):
        raise ConfigError(
            f"world_model.args.proprio_key is {config.proprio_key!r} and proprio_dim {config.proprio_dim}: give both, "
            "the key of the readings and how many there are, or neither."
        )
    if len(set(config.cameras)) != len(config.cameras):
        raise ConfigError(f"world_model.args.cameras names a camera twice: {', '.join(config.cameras)}.")
    return Senses(config.image_key, tuple(config.cameras), config.proprio_key, config.proprio_dim)


def _start_of(task: Task) -> EnvironmentStart:
    if task.start is None:
        raise DataError(
            f"Task {task.id!r} ({task.instruction!r}) has no environment, so no simulator can be "
            "started for it. Use tasks that name an environment and a seed, or another world model."
        )
    return task.start


def _check_width(environment: gymnasium.Env, width: int) -> None:
    space = environment.action_space
    if not isinstance(space, gymnasium.spaces.Box) or space.shape != (width,):
        name = environment.spec.id if environment.spec is not None else type(environment.unwrapped).__name__
        raise DataError(
            f"Actions have {width} dimensions; environment {name} takes {space}. "
            "Choose a policy and tasks of the same robot."
        )


def _take_back(pool: EnvironmentPool, episodes: list[LiveEpisode]) -> None:
    for episode in episodes:
        pool.take_back(episode.pool_key, episode.environment)
