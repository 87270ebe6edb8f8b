"""Whether what was judged a success is one: the same actions executed in the environment, or a second judge's word."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from gymnast_core.config.schema import RunConfig
from gymnast_core.errors import ConfigError
from gymnast_core.interfaces import Parts, Policy, RewardModel, WorldModel
from gymnast_core.plugins.registry import registries
from gymnast_core.success import is_success, success_of
from gymnast_core.training.judge import judge
from gymnast_core.types import Reward, Rollout, Task
from gymnast_gate.options import Config
from gymnast_gate.playback import play_back


@dataclass(frozen=True)
class Truth:
    """What is true of one rollout."""

    success: bool | None
    """None: nobody knows, see `error`."""
    real: Rollout | None = None
    """What the environment showed, where it was asked."""
    error: str | None = None
    cost_usd: float | None = 0.0


class Environment:
    """The simulator behind the tasks, and who judges there: `evaluation.world` and `evaluation.reward_model`."""

    replays = True

    def __init__(self, config: RunConfig, parts: Parts) -> None:
        """Raises `ConfigError` if the judge gives scores, and what building the two raises."""
        known, asked = registries(), config.evaluation
        self._batch_size = config.loop.imagine_batch_size
        self.name = asked.world.name
        self.judge: RewardModel = known.reward_models.build(
            asked.reward_model.name, asked.reward_model.args, key="evaluation.reward_model"
        )
        expect_success(self.judge.kind, "evaluation.reward_model", asked.reward_model.name)
        self.world: WorldModel = known.world_models.build(asked.world.name, asked.world.args, key="evaluation.world")
        for part in (self.world, self.judge):
            part.attach(replace(parts, world_model=self.world, reward_model=self.judge))

    def of(self, rollouts: Sequence[Rollout], policy: Policy) -> list[Truth]:
        """Execute the rollouts' actions from their tasks' starts."""
        real = play_back(
            [rollout.actions_NLA for rollout in rollouts], [rollout.task for rollout in rollouts], self.world, policy,
            generator=torch.Generator().manual_seed(0), batch_size=self._batch_size,
        )  # fmt: skip
        return self.judged(real)

    def judged(self, real: Sequence[Rollout]) -> list[Truth]:
        """What is true of rollouts that were made in the environment."""
        rewards = judge(self.judge, real) if real else []
        return [
            Truth(succeeded(reward), rollout, reward.error, reward.cost_usd)
            for rollout, reward in zip(real, rewards, strict=True)
        ]

    def preflight(self, rollouts: int, frames: int) -> None:
        """Raises `ConfigError` if so many rollouts of so many frames cannot be paid for."""
        self.judge.preflight(rollouts, frames)

    def close(self) -> None:
        self.world.close()
        self.judge.close()


class Auditor:
    """A second judge, whose word stands for the truth where there is no environment."""

    replays = False

    def __init__(self, options: Config, parts: Parts) -> None:
        """Raises `ConfigError` if it gives scores, and what building it raises."""
        assert options.auditor is not None
        part = options.auditor
        self.name = part.name
        self.judge: RewardModel = registries().reward_models.build(part.name, part.args, key="hooks.gate.auditor")
        expect_success(self.judge.kind, "hooks.gate.auditor", part.name)
        self.judge.attach(replace(parts, reward_model=self.judge))

    def of(self, rollouts: Sequence[Rollout], policy: Policy) -> list[Truth]:
        rewards = judge(self.judge, rollouts) if rollouts else []
        return [Truth(succeeded(reward), None, reward.error, reward.cost_usd) for reward in rewards]

    def preflight(self, rollouts: int, frames: int) -> None:
        """Raises `ConfigError` if so many rollouts of so many frames cannot be paid for."""
        self.judge.preflight(rollouts, frames)

    def close(self) -> None:
        self.judge.close()


def truth_of(config: RunConfig, options: Config, parts: Parts) -> Environment | Auditor:
    """Who is believed. Raises `ConfigError` where there is neither an environment nor an auditor."""
    check_truth(options, parts.tasks[0])
    return Environment(config, parts) if options.auditor is None else Auditor(options, parts)


def check_truth(options: Config, task: Task) -> None:
    """Raises `ConfigError` where nobody knows what is true of a task like this one."""
    if options.auditor is None and task.start is None:
        raise ConfigError(
            f"No environment stands behind task {task.id!r}, so nothing imagined can be held against what would really "
            "happen. Name a second judge in hooks.gate.auditor.name (an audit takes the place of replays), or use "
            "tasks with an environment."
        )


def expect_success(kind: str, key: str, name: str) -> None:
    """Raises `ConfigError` for a reward model that gives scores."""
    if kind != "success":
        raise ConfigError(f"{key}: {name!r} gives scores; a gate needs to know what is a success.")


def succeeded(reward: Reward) -> bool | None:
    """Whether a judgement is a success; None if there is none."""
    success = success_of(reward)
    return None if success is None else is_success(success)
