"""Two rewards that mark the ends of the scale: the simulator's own verdict, and pure chance."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from gymnast_core.config.ranges import Fraction, Seed
from gymnast_core.config.typed import typed
from gymnast_core.errors import ConfigError, DataError, shortened
from gymnast_core.interfaces import Parts, RewardModel
from gymnast_core.rollouts.steps import ended_after
from gymnast_core.types import EnvironmentStart, Reward, Rollout, Task
from gymnast_environment.environments import Environments, Live
from gymnast_environment.goals import other_goal, outcome_of, unknowable
from gymnast_environment.guard import check_start
from gymnast_environment.hosting import Hosting
from gymnast_environment.view import View
from gymnast_environment.world import GymnasiumWorld

TOGETHER = 64
"""Rollouts that are replayed at once in this process, where nothing else bounds them."""


class EnvironmentReward(RewardModel):
    """What the environment behind the task says: the oracle that learned rewards are measured against.

    A rollout that already carries its world's own outcome keeps it. Any other is replayed: its actions are
    executed in the task's environment from the task's seed, and success is read there, whatever it shows. Rollouts are
    replayed in parallel, each in an environment of its own.

    A task may ask for something else than its environment judges by (an edited instruction, which it cannot be told):
    then what counts is the outcome of that instruction, under `view.outcomes_key`; without one, it is unscored.
    """

    api_version = 2

    @dataclass(frozen=True)
    class Config:
        view: View | None = None
        """How environments are looked at; null: as the run's world model `gymnasium` does, if it has one, else as
        whoever made the task does (what counts as success, for how many steps an action is held)."""
        hosting: Hosting | None = None
        """Where environments live; null: with those of the run's world model `gymnasium`, if it has one."""
        check_first_frame: bool = True
        """Report an error when the environment does not start where the rollout did."""
        first_frame_tolerance: Fraction = 0.0002
        """As of the world model `gymnasium`."""
        check_resets: bool = True
        """As of the world model `gymnasium`."""
        constant_start: bool = False
        """As of the world model `gymnasium`."""
        always_replay: bool = False
        """Replay even the rollouts that carry an outcome."""

    @classmethod
    def looks_at(cls, config: Config, frames: int) -> Sequence[int]:
        """None: what happened is executed, and the environment's start is compared with the task's picture."""
        return ()

    def __init__(self, config: EnvironmentReward.Config | None = None):
        self.config = config if config is not None else self.Config()
        self._world: GymnasiumWorld | None = None
        self._own: dict[str, Environments] = {}
        """By how they are looked at."""

    def attach(self, parts: Parts) -> None:
        if isinstance(parts.world_model, GymnasiumWorld):
            self._world = parts.world_model

    def score(self, rollouts: Sequence[Rollout]) -> list[Reward]:
        rewards: dict[int, Reward] = {}
        replayed = []
        for place, rollout in enumerate(rollouts):
            found = self._at_once(rollout)
            if found is None:
                replayed.append(place)
            else:
                rewards[place] = found
        alike: dict[str, tuple[View, list[int]]] = {}
        for place in replayed:
            try:
                view = self._view(rollouts[place].task)
            except ConfigError as error:
                rewards[place] = Reward(None, error=f"Task {rollouts[place].task.id!r}: {error}")
            else:
                alike.setdefault(_name(view), (view, []))[1].append(place)
        for view, some in alike.values():
            environments = self._environments(view)
            order = environments.alternating([_start(rollouts[place]) for place in some])
            some = [some[place] for place in order]
            most = environments.most_episodes([_start(rollouts[place]) for place in some]) or TOGETHER
            for first in range(0, len(some), most):
                places = some[first : first + most]
                verdicts = self._replay(environments, [rollouts[place] for place in places])
                rewards.update(zip(places, verdicts, strict=True))
        return [rewards[place] for place in range(len(rollouts))]

    def objection(self, task: Task) -> str | None:
        if task.start is None:
            return None
        try:
            return unknowable(task, self._view(task))
        except ConfigError as error:
            return f"Task {task.id!r}: {error}"

    def _at_once(self, rollout: Rollout) -> Reward | None:
        """What is known without a replay; None where it takes one."""
        if (objection := self.objection(rollout.task)) is not None:
            return Reward(None, error=objection)
        # A world of others may know its own goal alone.
        believed = self._world is not None or other_goal(rollout.task) is None
        if rollout.outcome is not None and believed and not self.config.always_replay:
            return Reward(rollout.outcome, rationale="reported by the world")
        if rollout.task.start is None:
            return Reward(None, error=f"Task {rollout.task.id!r} has no environment to replay it in.")
        return None

    def close(self) -> None:
        for environments in self._own.values():
            environments.close()

    def _view(self, task: Task) -> View:
        """How a rollout of it is looked at: as we were told, as the run's world does, or as the task says. Raises
        `ConfigError` for a task that says what no view can be."""
        if self.config.view is not None:
            return self.config.view
        if self._world is not None:
            return self._world.config.view
        assert task.start is not None
        if task.start.view is None:
            return View()
        view = typed(View, task.start.view, "start.view")
        # Only some of the cameras that were recorded may have been read.
        shown = {name: key for name, key in view.cameras.items() if name in task.cameras}
        return replace(view, cameras=shown or view.cameras)

    def _environments(self, view: View) -> Environments:
        """Those of the run's world, if they are what we would have; else our own."""
        hosting = self.config.hosting
        if self._world is not None:
            theirs = self._world.config
            if view == theirs.view and hosting in (None, theirs.hosting):
                return self._world.environments
            hosting = hosting or theirs.hosting
        name = _name(view)
        if name not in self._own:
            self._own[name] = Environments(
                view, hosting, check_resets=self.config.check_resets, constant_start=self.config.constant_start
            )
        return self._own[name]

    def _replay(self, environments: Environments, rollouts: Sequence[Rollout]) -> list[Reward]:
        """One reward each; what cannot be replayed costs no other rollout its reward."""
        try:
            lives = environments.reset([_start(rollout) for rollout in rollouts], lenient=True)
        except DataError as error:  # no room for them
            return [Reward(None, error=str(error)) for _ in rollouts]
        try:
            for rollout, live in zip(rollouts, lives, strict=True):
                self._check(rollout, live, environments.view)
            actions = [rollout.actions_NLA.flatten(0, 1).cpu().numpy() for rollout in rollouts]
            sound = [place for place, live in enumerate(lives) if live.error is None]
            shown = environments.step(
                [lives[place] for place in sound], [actions[place] for place in sound], lenient=True
            )
            ends = {
                place: ended_after(torch.tensor([sensed.ended for sensed in seen]))
                for place, seen in zip(sound, shown, strict=True)
            }
            return [
                _verdict(live, environments.view, ends.get(place), other_goal(rollouts[place].task))
                for place, live in enumerate(lives)
            ]
        finally:
            for live in lives:
                live.release()

    def _check(self, rollout: Rollout, live: Live, view: View) -> None:
        if live.error is None and self.config.check_first_frame:
            try:
                check_start(rollout.task, live.sensed, view, self.config.first_frame_tolerance)
            except DataError as error:
                live.error = str(error)


def _name(view: View) -> str:
    return json.dumps(view.told(), sort_keys=True)


def _start(rollout: Rollout) -> EnvironmentStart:
    assert rollout.task.start is not None
    return rollout.task.start


def _verdict(live: Live, view: View, end: int | None, goal: str | None) -> Reward:
    """`end`: after how many actions the environment was over, if it was. `goal`: what was asked for, if that is not
    what the environment judges by."""
    if live.error is not None:
        return Reward(None, error=live.error)
    outcome = outcome_of(live.sensed, goal, view)
    if outcome is None and goal is not None:
        names = ", ".join(map(repr, live.sensed.outcomes)) or "none"
        return Reward(
            None,
            error=f"{live.start.id} tells no outcome of {goal!r} under view.outcomes_key={view.outcomes_key}, but of: "
            f"{shortened(names, 300)}.",
        )
    if outcome is None:
        return Reward(None, error=f"{live.start.id} reports no {view.success_key!r} in info; set view.success_key.")
    # What was done after its end did nothing, though imagination may have gone on.
    finish = end if outcome > 0 else None
    return Reward(outcome, rationale=f"replayed in {live.start.id}, seed {live.start.seed}", finish_step=finish)


class RandomReward(RewardModel):
    """Success by chance: the control that a run has to beat.

    The draw is a hash of the seed and of what happened in the rollout: the same rollout gets the same reward,
    in whatever order or batch it is scored.
    """

    api_version = 2

    @dataclass(frozen=True)
    class Config:
        probability: Fraction = 0.5
        """Chance of a success."""
        seed: Seed = 0
        """Other seeds give other draws."""

    def __init__(self, config: RandomReward.Config | None = None):
        self.config = config if config is not None else self.Config()

    def score(self, rollouts: Sequence[Rollout]) -> list[Reward]:
        return [Reward(float(self._uniform(rollout) < self.config.probability)) for rollout in rollouts]

    def _uniform(self, rollout: Rollout) -> float:
        digest = hashlib.blake2b(digest_size=8)
        for text in (str(self.config.seed), rollout.task.id, rollout.task.instruction):
            digest.update(text.encode() + b"\0")
        for tensor in (rollout.actions_NLA, rollout.frames_TVHWC):
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        # 53 bits: the most that a float in [0, 1) holds, so that the draw never rounds up to 1.
        return (int.from_bytes(digest.digest(), "big") >> 11) / 2.0**53
