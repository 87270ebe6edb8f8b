"""The simulator behind each task as a world model: where policies are tried without imagination."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from gymnast_core.config.ranges import Fraction
from gymnast_core.errors import ConfigError, DataError
from gymnast_core.interfaces import WorldModel
from gymnast_core.types import EnvironmentStart, Offers, Step, Task
from gymnast_environment.environments import Environments, Live, Sensed
from gymnast_environment.goals import other_goal, outcome_of
from gymnast_environment.guard import check_start, expected_frames
from gymnast_environment.hosting import Hosting
from gymnast_environment.view import View


@dataclass(eq=False)
class GymnasiumState:
    """B episodes under way. When it is dropped, its environments go back to the pool."""

    lives: list[Live]
    unseen: dict[int, Sensed]
    """What stands for those that could not be started: their task's own frame."""
    goals: list[str | None]
    """What each task asks for, where that is not what its environment judges by; else None."""

    def __post_init__(self) -> None:
        weakref.finalize(self, _let_go, self.lives).atexit = False


class GymnasiumWorld(WorldModel):
    """Steps the Gymnasium environment that each task names; every task may name another one.

    >>> world = GymnasiumWorld(GymnasiumWorld.Config())
    >>> state = world.reset(tasks)                     # environment.reset(seed=task.start.seed, options=...)
    >>> step = world.step(state, actions_BLA)
    >>> step.outcome_BL[:, -1]                         # info["success"] of each episode's latest step
    tensor([0., 1.])

    Everything random comes from the task's seed, so the generator of `reset` is not used. An environment that crashes
    or hangs costs its own episode alone (`Step.errors`). Where a task asks for something else than its environment
    judges by (`EnvironmentStart.instruction`), the outcome is that of the task if `view.outcomes_key` tells it, else
    NaN.
    """

    api_version = 2

    @dataclass(frozen=True)
    class Config:
        view: View = field(default_factory=View)
        """How environments are looked at: cameras, readings, success."""
        hosting: Hosting = field(default_factory=Hosting)
        """Where environments live: interpreter, processes, timeouts."""
        check_first_frame: bool = True
        """Refuse tasks whose last context frame and readings are not what their environment shows after `reset`."""
        first_frame_tolerance: Fraction = 0.0002
        """Share of a camera's pixels that may differ there by more than 16 levels of 255, and 40 % of the contrast
        around them. The default is less than a pixel of 64 x 64: things seen from afar have two or three."""
        check_resets: bool = True
        """Reset each environment a few times when it is first used, and refuse it if the same seed does not show the
        same observation, or if other seeds do."""
        constant_start: bool = False
        """Allow environments that start alike whatever the seed."""

    def __init__(self, config: GymnasiumWorld.Config | None = None):
        self.config = config if config is not None else self.Config()
        self.device = torch.device("cpu")
        self.environments = Environments(
            self.config.view,
            self.config.hosting,
            check_resets=self.config.check_resets,
            constant_start=self.config.constant_start,
        )

    @classmethod
    def offers(cls, config: GymnasiumWorld.Config) -> Offers:
        view = config.view
        if view.proprio and view.proprio_dim is None:
            raise ConfigError(
                f"world_model.args.view.proprio names {', '.join(view.proprio)}, and proprio_dim is not given: give "
                "both, the keys of the readings and how many there are, or neither."
            )
        return Offers(view.camera_names or 1, view.proprio_dim)

    def most_episodes(self, tasks: Sequence[Task]) -> int | None:
        return self.environments.most_episodes([_start_of(task) for task in tasks])

    def reset(self, tasks: Sequence[Task], *, generator: torch.Generator | None = None) -> GymnasiumState:
        """Start every task's environment from its own seed.

        Raises `DataError` for tasks without an environment, or with another first frame than theirs, for environments
        whose seeds cannot be relied on, and if no episode can be started.
        """
        self.offers(self.config)
        lives = self.environments.reset([_start_of(task) for task in tasks])
        state = GymnasiumState(lives, {}, [other_goal(task) for task in tasks])
        try:
            for place, (task, live) in enumerate(zip(tasks, lives, strict=True)):
                if not live.shown:
                    state.unseen[place] = _stand_in(task, self.config.view)
                elif self.config.check_first_frame:
                    check_start(task, live.sensed, self.config.view, self.config.first_frame_tolerance)
        except BaseException:
            for live in lives:
                live.release()
            raise
        return state

    def reset_apart(self, tasks: Sequence[Task], *, generators: Sequence[torch.Generator]) -> GymnasiumState:
        return self.reset(tasks)

    def step(self, state: GymnasiumState, actions_BLA: Tensor) -> Step:
        actions = actions_BLA.detach().to("cpu", torch.float32).numpy()
        count = len(state.lives)
        if actions.ndim != 3 or len(actions) != count or not actions.shape[1]:
            raise DataError(
                f"Actions have shape {tuple(actions.shape)}; expected ({count} episodes, "
                "at least 1 action, action dimensions)."
            )
        places = [place for place in range(count) if place not in state.unseen]
        found = self.environments.step([state.lives[place] for place in places], [actions[place] for place in places])
        shown = {place: [sensed] * actions.shape[1] for place, sensed in state.unseen.items()}
        shown.update(zip(places, found, strict=True))
        rows = [shown[place] for place in range(count)]
        outcomes = [
            [outcome_of(sensed, goal, self.config.view) for sensed in row]
            for row, goal in zip(rows, state.goals, strict=True)
        ]
        return _step(rows, outcomes, [live.error for live in state.lives])

    def close(self) -> None:
        self.environments.close()


def _step(
    shown: Sequence[Sequence[Sensed]], outcomes: Sequence[Sequence[float | None]], errors: Sequence[str | None]
) -> Step:
    """What B episodes of L actions showed, and how far each task was fulfilled, where that is known."""
    shapes = {sensed.frames_VHWC.shape for row in shown for sensed in row}
    if len(shapes) > 1:
        raise DataError(f"Environments of one batch show frames of different sizes: {sorted(shapes)}.")
    frames_BLVHWC = np.stack([np.stack([sensed.frames_VHWC for sensed in row]) for row in shown])
    readings = [[sensed.proprio_P for sensed in row if sensed.proprio_P is not None] for row in shown]
    known = [np.stack(row) for row in readings if row]
    known_outcomes = [[float("nan") if outcome is None else outcome for outcome in row] for row in outcomes]
    ended = torch.tensor([[sensed.ended for sensed in row] for row in shown])
    return Step(
        torch.from_numpy(frames_BLVHWC),
        torch.from_numpy(np.stack(known)) if known else None,
        torch.tensor(known_outcomes, dtype=torch.float32),
        tuple(errors) if any(errors) else None,
        ended if bool(ended.any()) else None,
    )


def _stand_in(task: Task, view: View) -> Sensed:
    """What an episode shows whose environment never showed anything: the task's own frame and readings."""
    if not view.proprio:
        proprio = None
    elif task.proprio_TP is not None:
        proprio = task.proprio_TP[-1].cpu().numpy().astype(np.float32)
    else:
        proprio = np.zeros(view.proprio_dim or 0, np.float32)
    return Sensed(expected_frames(task, view), proprio)


def _start_of(task: Task) -> EnvironmentStart:
    if task.start is None:
        raise DataError(
            f"Task {task.id!r} ({task.instruction!r}) has no environment, so no simulator can be "
            "started for it. Use tasks that name an environment and a seed, or another world model."
        )
    return task.start


def _let_go(lives: Sequence[Live]) -> None:
    for live in lives:
        live.let_go()
