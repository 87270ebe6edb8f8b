"""Worlds whose noise is known, and judges that look at the last frame."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from gymnast_core.interfaces import Parts, RewardModel, WorldModel
from gymnast_core.plugins.registry import registries
from gymnast_core.types import Episode, Reward, Rollout, Step, Task, one_camera

SIZE = 32
GOAL = 200
"""What the judge takes for success: the first pixel of the last frame is at least this bright."""


@dataclass(frozen=True)
class Nothing:
    """A config without fields."""


class NoisyWorld(WorldModel):
    """A grey picture whose brightness grows by each action; what it adds of its own is drawn at the start.

    `invents` is the probability that an episode shows a success whatever was done, `noise` the spread of brightness.
    """

    api_version = 2
    Config = Nothing
    device = torch.device("cpu")

    def __init__(self, config: Nothing | None = None, *, invents: float = 0.0, noise: float = 0.0) -> None:
        self.config, self.invents, self.noise = config or Nothing(), invents, noise
        self.batches: list[int] = []
        self.parts: Parts | None = None

    def attach(self, parts: Parts) -> None:
        self.parts = parts

    def reset(self, tasks: Sequence[Task], *, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        self.batches.append(len(tasks))
        start = torch.tensor([float(task.frames_TVHWC[-1, 0, 0, 0, 0]) for task in tasks])
        drawn = torch.rand(len(tasks), 2, generator=generator)
        return {"grey": start, "invents": drawn[:, 0] < self.invents, "noise": (drawn[:, 1] * 2 - 1) * self.noise}

    def step(self, state: dict[str, Tensor], actions_BLA: Tensor) -> Step:
        shown = []
        for action_BA in actions_BLA.unbind(1):
            state["grey"] = state["grey"] + action_BA[:, 0]
            value_B = torch.where(state["invents"], 255.0, state["grey"] + state["noise"]).clamp(0, 255)
            shown.append(value_B.round().byte()[:, None, None, None].expand(-1, SIZE, SIZE, 3))
        return Step(torch.stack(shown, dim=1)[:, :, None])


class RowWorld(NoisyWorld):
    """The same, with noise row by row."""

    def reset_apart(self, tasks: Sequence[Task], *, generators: Sequence[torch.Generator]) -> dict[str, Tensor]:
        states = [
            super(RowWorld, self).reset([task], generator=own) for task, own in zip(tasks, generators, strict=True)
        ]
        self.batches[-len(tasks) :] = [len(tasks)]
        return {name: torch.cat([state[name] for state in states]) for name in states[0]}


class Bright(RewardModel):
    """Success if the last frame is bright; partial credit is how bright. Costs a cent."""

    api_version = 2

    @dataclass(frozen=True)
    class Config:
        kind: str = "success"
        partial: bool = True
        fails_below: int = -1
        """Brightness below which it cannot judge."""
        finishes: bool = False

    def __init__(self, config: Config | None = None) -> None:
        self.config = config or self.Config()
        self.kind = self.config.kind  # type: ignore[assignment]
        self.seen: list[int] = []
        self.planned = 0
        self.closed = 0

    def score(self, rollouts: Sequence[Rollout]) -> list[Reward]:
        return [self._score(rollout) for rollout in rollouts]

    def _score(self, rollout: Rollout) -> Reward:
        if not len(rollout.frames_TVHWC):
            return Reward(None, error="no frame")
        greys = rollout.frames_TVHWC[:, 0, 0, 0, 0].long()
        self.seen.append(int(greys[-1]))
        if int(greys[-1]) < self.config.fails_below:
            return Reward(None, error="too dark", cost_usd=0.01)
        bright = (greys[1:] >= GOAL).nonzero()
        finish = int(bright[0]) + 1 if len(bright) and self.config.finishes else None
        partial = float(greys[-1]) / 255 if self.config.partial else None
        return Reward(
            float(greys[-1] >= GOAL), partial=partial, rationale="bright", cost_usd=0.01, finish_step=finish
        )  # fmt: skip

    def preflight(self, rollouts: int, frames: int) -> None:
        self.planned = rollouts

    def state_dict(self) -> dict[str, Any]:
        return {"planned": self.planned}

    def load_state_dict(self, state: Any) -> None:
        self.planned = state["planned"]

    def close(self) -> None:
        self.closed += 1


def task(grey: int, name: str = "task", expert: Sequence[float] | None = None) -> Task:
    frames = one_camera(torch.full((1, SIZE, SIZE, 3), grey, dtype=torch.uint8))
    recorded = None
    if expert is not None:
        shown = frames.expand(1 + len(expert), -1, -1, -1, -1)
        recorded = Episode(
            f"{name}-expert", frames_TVHWC=shown, actions_TA=torch.tensor(expert)[:, None], instruction="brighten"
        )
    return Task(f"{name}-{grey}", "brighten", frames, expert=recorded)


def rollout(start: Task, actions: Sequence[float], shown: Sequence[int] | None = None, length: int = 2) -> Rollout:
    """What was done, and shown: by default, what a world without noise shows."""
    actions_NLA = torch.tensor(actions).reshape(-1, length, 1)
    grey = float(start.frames_TVHWC[-1, 0, 0, 0, 0])
    greys = (grey + torch.tensor(actions).cumsum(0)).clamp(0, 255).round() if shown is None else torch.tensor(shown)
    frames = greys.byte()[:, None, None, None, None].expand(-1, 1, SIZE, SIZE, 3)
    return Rollout(
        task=start,
        group=0,
        frames_TVHWC=torch.cat([start.frames_TVHWC[-1:], frames]),
        actions_NLA=actions_NLA,
        log_prob_NLD=torch.zeros_like(actions_NLA),
        temperature=1.0,
    )


@dataclass
class Building:
    """Makes classes of these tests known by name, and remembers what was built."""

    built: list[Any] = field(default_factory=list)

    @contextmanager
    def known(self, **classes: Callable[..., Any]) -> Iterator[Building]:
        kept = []
        for name, cls in classes.items():
            registry = registries().world_models if issubclass(cls, WorldModel) else registries().reward_models  # type: ignore[arg-type]
            kept.append((registry, dict(registry._registered), dict(registry._loaded)))
            registry.register(name, cls)  # type: ignore[arg-type]
        try:
            yield self
        finally:
            for registry, registered, loaded in reversed(kept):
                registry._registered, registry._loaded = registered, loaded
