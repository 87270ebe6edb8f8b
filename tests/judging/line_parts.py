"""The dot on a line as installed parts, with clips whose outcome is known, and judges with faults of their own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from bandit import WIDTH, LineWorld, line_task, picture, place
from bandit import LinePolicy as BanditPolicy

from gymnast_core.interfaces import Dataset, RewardModel
from gymnast_core.plugins.registry import registries
from gymnast_core.types import Episode, Reward, Rollout, Task, one_camera

__all__ = ["Clips", "Command", "Judge", "LinePolicy", "Tasks", "World", "install", "training"]


Command = Callable[..., tuple[int, str, str]]
"""The command line in this process: exit code, standard output, standard error."""


class World(LineWorld):
    api_version = 2

    def __init__(self, config: LineWorld.Config) -> None:
        self.config = config


class LinePolicy(BanditPolicy):
    api_version = 2

    @dataclass(frozen=True)
    class Config:
        chunk_length: int = 2
        lean: float = 0.0
        """Logit of going right at the beginning, over going left."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)  # type: ignore[arg-type]
        self.logits.data[1] = config.lean


class Tasks(Dataset):
    api_version = 2

    @dataclass(frozen=True)
    class Config:
        pass

    def __init__(self, config: Config) -> None:
        self.config = config

    def tasks(self) -> Sequence[Task]:
        return [line_task(position) for position in (6, 7, 8)]


class Clips(Dataset):
    """Dots that move by one a step; "go right" is fulfilled if they end right of where they began."""

    api_version = 2

    @dataclass(frozen=True)
    class Config:
        count: int = 20
        unlabelled: int = 0
        """The first so many have no label."""

    def __init__(self, config: Config) -> None:
        self.config = config

    def episodes(self) -> Sequence[Episode]:
        return [self._episode(i) for i in range(self.config.count)]

    def _episode(self, index: int) -> Episode:
        step = 1 if index % 2 else -1
        positions = torch.tensor([8, 8 + step, 8 + 2 * step, 8 + 3 * step])
        frames_THWC = picture(positions)
        # Clips differ in a pixel beside the line of sight, so that no two are one question.
        frames_THWC[:, 0, 0, 1] = index
        frames_THWC[:, 0, WIDTH - 1, 2] = 1
        label = None if index < self.config.unlabelled else step > 0
        return Episode(
            f"clip-{index}", "go right", one_camera(frames_THWC), torch.full((3, 1), float(step)), success=label
        )


class Judge(RewardModel):
    """Right about the dot, unless told otherwise; half a dollar a rollout."""

    api_version = 2

    calls: ClassVar[list[int]] = []
    announced: ClassVar[list[tuple[int, int]]] = []
    fail: ClassVar[Callable[[Rollout], bool]]

    @dataclass(frozen=True)
    class Config:
        rule: str = "right"
        """Which way is a success: right, left, or any."""

    def __init__(self, config: Config) -> None:
        self.config = config

    def preflight(self, rollouts: int, frames: int) -> None:
        self.announced.append((rollouts, frames))

    def score(self, rollouts: Sequence[Rollout]) -> list[Reward]:
        self.calls.append(len(rollouts))
        return [self._score(rollout) for rollout in rollouts]

    def _score(self, rollout: Rollout) -> Reward:
        assert rollout.outcome is None, "a judge must not see the truth"
        if type(self).fail(rollout):
            return Reward(None, error="the judge is asleep", cost_usd=0.5)
        moved = place(rollout.view()[-1]) - place(rollout.view()[0])
        return self._reward(moved)

    def _reward(self, moved: int) -> Reward:
        success = {"right": moved > 0, "left": moved < 0, "any": moved != 0}[self.config.rule]
        return Reward(float(success), partial=0.5 + max(-4, min(4, moved)) / 8, rationale="saw it", cost_usd=0.5)


class Distance(Judge):
    """Says how far to the right the dot went: a score, in places."""

    api_version = 2
    kind = "score"

    def _reward(self, moved: int) -> Reward:
        return Reward(float(moved), rationale="measured it", cost_usd=0.5)


def install() -> None:
    """Register these parts in this process."""
    known = registries()
    known.world_models.register("line", World)
    known.policies.register("line", LinePolicy)
    known.reward_models.register("line", Judge)
    known.reward_models.register("distance", Distance)
    known.datasets.register("line-tasks", Tasks)
    known.datasets.register("line-clips", Clips)


def training(output: object, *changes: str) -> list[str]:
    """`gymnast train` of the dot's policy, six iterations of 24 rollouts."""
    return [
        "train", "world_model=line", "policy=line", "reward_model=line", "tasks=line-tasks",
        "optimizer={name: grpo, args: {group_size: 6, learning_rate: 0.1, minibatch_size: 8, epochs: 1, "
        "accuracy_bounds: [0.01, 0.99]}}",
        "loop.iterations=6", "loop.tasks_per_iteration=4", "loop.max_draws=1", "loop.horizon=4",
        "trainer.accelerator=cpu", f"output={output}", *changes,
    ]  # fmt: skip
