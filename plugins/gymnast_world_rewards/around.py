"""What these rewards share: the judge that they are built around, and the world in which they imagine."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch

from gymnast_core.config import ComponentConfig
from gymnast_core.config.ranges import Count, Seed, check_values
from gymnast_core.config.typed import typed
from gymnast_core.errors import ConfigError
from gymnast_core.interfaces import Parts, RewardModel, WorldModel
from gymnast_core.plugins.registry import registries
from gymnast_core.rollouts.replay import Course, replay, shown_again
from gymnast_core.seeds import seeded_generator
from gymnast_core.training.judge import submit
from gymnast_core.types import Reward, Rollout, Task

KEY = "reward_model.args"


@dataclass(frozen=True)
class JudgeConfig:
    """The judge that these rewards are built around."""

    name: str = ""
    """Name of a reward model that judges success, e.g. success-classifier."""
    args: dict[str, Any] = field(default_factory=dict)
    """Its arguments."""


@dataclass(frozen=True)
class ImaginedConfig:
    """Where and how rollouts are imagined again."""

    world_model: ComponentConfig | None = None
    """A world model of its own, {name, args}; null: the one that the run imagines in."""
    seed: Seed = 0
    """Of the noise, which is that of no rollout of the run: it depends on this seed and on what is imagined."""
    together: Count = 256
    """Episodes imagined at once, at most (memory)."""


class Imagining:
    """The world in which a reward model imagines: the run's, or one of its own."""

    def __init__(self, config: ImaginedConfig, name: str) -> None:
        self._config, self._name = config, name
        self._own: WorldModel | None = None
        self._parts = Parts()

    def attach(self, parts: Parts) -> None:
        """Keeps the parts, also for a world of its own, which is built when it is first needed. Raises `ConfigError` if
        that has no such arguments."""
        self._parts = parts
        if (part := self._config.world_model) is not None:
            registries().world_models.configure(part.name, part.args, key=f"{KEY}.world_model")

    def close(self) -> None:
        if self._own is not None:
            self._own.close()

    @property
    def world(self) -> WorldModel:
        """Raises `ConfigError` if there is none."""
        part = self._config.world_model
        if part is not None and self._own is None:
            self._own = registries().world_models.build(part.name, part.args, key=f"{KEY}.world_model")
            self._own.attach(replace(self._parts, world_model=self._own))
        world = self._own or self._parts.world_model
        if world is None:
            raise ConfigError(
                f"The reward model {self._name!r} imagines rollouts, and this command has no world model. Name one: "
                f"{KEY}.world_model={{name: worldgym, args: {{checkpoint: …}}}}."
            )
        return world

    def again(self, rollouts: Sequence[Rollout], *labels: str | int) -> list[Rollout]:
        """The same actions imagined once more from the same starts, each rollout from noise that its content, the seed
        and the labels name: it does not depend on the other rollouts."""
        courses = [
            Course(
                rollout.task,
                rollout.actions_NLA.unbind(0),
                seeded_generator(self._config.seed, self._name, *labels, fingerprint(rollout)),
            )
            for rollout in rollouts
        ]
        steps = replay(self.world, courses, together=self._config.together)
        return [shown_again(rollout, step) for rollout, step in zip(rollouts, steps, strict=True)]


class AroundJudge(RewardModel):
    """A reward model that is built around another one, whose kind and state are its own."""

    config: Any

    def __init__(self, config: Any, name: str) -> None:
        self.config = config
        check_values(type(config), asdict(config), KEY)
        if not config.judge.name:
            raise ConfigError(
                f"The reward model {name!r} is built around a judge: set {KEY}.judge.name, e.g. success-classifier, "
                f"and {KEY}.judge.args."
            )
        self.judge = registries().reward_models.build(config.judge.name, config.judge.args, key=f"{KEY}.judge")
        if self.judge.kind != "success":
            raise ConfigError(
                f"{KEY}.judge: {config.judge.name!r} gives scores, and {name!r} needs a judge of success. Choose one "
                "whose values lie in [0, 1]."
            )

    @classmethod
    def looks_at(cls, config: Any, frames: int) -> Sequence[int]:
        """What its judge looks at."""
        judge = registries().reward_models.load(config.judge.name)
        own: Any = typed(judge.Config, config.judge.args, f"{KEY}.judge.args")
        return judge.looks_at(own, frames)

    def attach(self, parts: Parts) -> None:
        self.judge.attach(replace(parts, reward_model=self.judge))

    def objection(self, task: Task) -> str | None:
        return self.judge.objection(task)

    def preflight(self, rollouts: int, frames: int) -> None:
        self.judge.preflight(rollouts, frames)

    def state_dict(self) -> dict[str, Any]:
        return {"judge": self.judge.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.judge.load_state_dict(state["judge"])

    def close(self) -> None:
        self.judge.close()

    def asked(self, rollouts: Sequence[Rollout]) -> list[Reward]:
        """What the judge says; an episode that the world lost is an error, and never shown to it."""
        if not rollouts:
            return []
        future = submit(self.judge, rollouts)
        try:
            return future.result()
        except BaseException:  # Ctrl-C, above all: nothing more may be sent, or paid
            future.cancel()
            raise


def no_start(rollout: Rollout) -> str | None:
    """Why a rollout cannot be imagined again; None if it can."""
    if rollout.frame_count and len(rollout.task.frames_TVHWC) and rollout.horizon:
        return None
    return f"Task {rollout.task.id!r} shows no frame, or nothing was done: it cannot be imagined again"


def fingerprint(rollout: Rollout) -> str:
    """Names a start and what is done there: equal for equal tasks and actions, whatever was shown."""
    digest = hashlib.blake2b(digest_size=16)
    for text in (rollout.task.id, rollout.task.instruction):
        digest.update(text.encode() + b"\0")
    digest.update(str(tuple(rollout.actions_NLA.shape)).encode())
    digest.update(rollout.actions_NLA.detach().to("cpu", torch.float32).contiguous().numpy().tobytes())
    return digest.hexdigest()


def unscored(reward: Reward, error: str) -> Reward:
    """A judgement that came to nothing: what it cost, and what was voted, remain."""
    return Reward(None, error=error, cost_usd=reward.cost_usd, votes=reward.votes)
