"""One attempt under way, and what came of it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from gymnast_collect.actors import Actor, Casting, Limits, Noise
from gymnast_collect.wanted import Attempt
from gymnast_core.errors import ConfigError, DataError
from gymnast_core.types import ONE_CAMERA, EnvironmentStart, Episode, Task
from gymnast_environment.environments import Live, Sensed
from gymnast_environment.families import Family
from gymnast_environment.view import View


@dataclass(frozen=True)
class Take:
    """An attempt that is over."""

    attempt: Attempt
    about: dict[str, Any]
    """What attempts.jsonl says of it: plain values."""
    episode: Episode | None
    """What was recorded; None if the environment crashed."""

    @property
    def success(self) -> bool | None:
        return None if self.episode is None else self.episode.success


@dataclass
class Rolling:
    """An attempt under way in an environment that is lent to it."""

    attempt: Attempt
    family: Family
    start: EnvironmentStart
    live: Live
    limits: Limits
    task: Task
    actor: Actor
    noise: Noise
    function: str | None
    """The scripted expert that it needs."""
    advised: bool
    """Whether it needs one."""
    about: dict[str, Any]
    seen: list[Sensed] = field(default_factory=list)
    actions: list[np.ndarray] = field(default_factory=list)
    succeeded_after: int | None = None
    """Actions until the first success."""

    @classmethod
    def begin(cls, attempt: Attempt, family: Family, live: Live, casting: Casting, view: View) -> Rolling:
        """From an environment that was reset. Raises `GymnastError` for an actor that does not fit it."""
        number, label = attempt[1], family.label
        chosen, noise, hold = casting.draw(label, number)
        config = casting.config.all_actors()[chosen]
        limits, task = Limits.of(live.about), task_of(family, live, view)
        about = {
            "family": label,
            "attempt": number,
            "seed": live.start.seed,
            "actor": config.label,
            "noise": {"white": noise.white, "drift": noise.drift, "gain": noise.gain},
        }
        if config.kind == "random":
            about["hold"] = hold
        actor = casting.make(chosen, label, number, hold, limits, task)
        rolling = cls(
            attempt,
            family,
            live.start,
            live,
            limits,
            task,
            actor,
            noise,
            config.function,
            config.kind == "expert",
            about,
        )
        rolling.see(live.sensed)
        return rolling

    def see(self, sensed: Sensed) -> None:
        """What is shown now."""
        self.seen.append(sensed)
        self.actor.see(sensed)
        if self.succeeded_after is None and succeeded(sensed):
            self.succeeded_after = len(self.seen) - 1

    def act(self, advice_A: np.ndarray | None) -> np.ndarray:
        """The next action, float32 (A,), within the limits: what is recorded is what the environment gets."""
        action_A = self.noise(self.actor.act(advice_A), self.limits)
        if action_A.shape != self.limits.low_A.shape:
            raise DataError(
                f"Actor {self.about['actor']!r} acts in {len(action_A)} dimensions; {self.limits.space} takes "
                f"{len(self.limits.low_A)}."
            )
        chosen_A = self.limits.within(action_A).float().numpy()
        self.actions.append(chosen_A)
        return chosen_A

    def over(self, horizon: int, stop_after_success: int | None) -> bool:
        """Whether no action follows."""
        taken = len(self.actions)
        if taken >= horizon or self.live.error is not None or self.seen[-1].ended:
            return True
        if stop_after_success is None or self.succeeded_after is None:
            return False
        return taken >= max(self.succeeded_after, 1) + stop_after_success

    def finish(self, rate: Rate) -> Take:
        """What came of it; the environment goes back."""
        self.live.release()
        about = {**self.about, "instruction": self.task.instruction, "actions": len(self.actions)}
        if self.live.error is not None or not self.actions:
            reason = self.live.error or "it ended before the first action"
            return Take(self.attempt, {**about, "success": None, "error": reason}, None)
        last = self.seen[-1]
        success = None if last.outcome is None else succeeded(last)
        readings = [sensed.proprio_P for sensed in self.seen if sensed.proprio_P is not None]
        episode = Episode(
            self.task.id,
            self.task.instruction,
            torch.from_numpy(np.stack([sensed.frames_VHWC for sensed in self.seen])),
            torch.from_numpy(np.stack(self.actions)),
            cameras=self.task.cameras,
            proprio_TP=torch.from_numpy(np.stack(readings)) if readings else None,
            fps=rate.fps,
            success=success,
            outcomes=dict(last.outcomes),
            start=self.start,
        )
        about |= {"success": success, "succeeded_after": self.succeeded_after}
        about |= {"fps": rate.fps, "fps_from": rate.source}
        return Take(self.attempt, about, episode)


def lost(attempt: Attempt, family: Family, reason: str) -> Take:
    """An attempt whose environment could not even be reset."""
    about = {
        "family": family.label,
        "attempt": attempt[1],
        "seed": family.start(attempt[1]).seed,
        "success": None,
        "error": reason,
    }
    return Take(attempt, about, None)


def succeeded(sensed: Sensed) -> bool:
    """Whether the instruction is fulfilled; half a success is none."""
    return sensed.outcome is not None and sensed.outcome >= 1.0


def task_of(family: Family, live: Live, view: View) -> Task:
    """The task that begins with what an environment shows. Raises `DataError` where nothing says what is to be done."""
    sensed, name = live.sensed, f"{family.label}/{live.start.seed}"
    instruction = family.instruction or sensed.instruction
    if instruction is None or not instruction.strip():
        raise DataError(
            f"{name}: the environment says nothing under view.instruction_key={view.instruction_key}. Set "
            "environments[].instruction."
        )
    return Task(
        name,
        instruction,
        torch.from_numpy(sensed.frames_VHWC)[None],
        cameras=view.camera_names or ONE_CAMERA,
        proprio_TP=None if sensed.proprio_P is None else torch.from_numpy(sensed.proprio_P)[None],
        start=replace(family.aimed(live.start, instruction), view=view.told()),
    )


@dataclass(frozen=True)
class Rate:
    """How many actions a second, and who says so."""

    fps: float
    source: str
    """"fps", which the config asked for, or "render_fps", which the environment's metadata says."""


def rate_of(live: Live, asked: float | None, view: View) -> Rate:
    """Raises `ConfigError` where neither the config nor the environment says."""
    if asked is not None:
        return Rate(asked, "fps")
    found = live.about.fps
    if found is None:
        raise ConfigError(
            f"{live.about.name} says no render_fps in its metadata, so nothing says how many actions a second the "
            "recording has. Give them: fps=N."
        )
    return Rate(found / view.action_repeat, "render_fps")
