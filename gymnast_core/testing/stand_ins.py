"""The smallest parts of a run, for checks that must show a plugin some: they imagine and judge, and know nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from gymnast_core.interfaces import Optimizer, Parts, RewardModel, WorldModel
from gymnast_core.learning import Advantages, Judged, Minibatch
from gymnast_core.testing.made_judged import StandInPolicy
from gymnast_core.types import LossSum, Reward, Rollout, Step, Task

ACTION_DIM = StandInPolicy.action_dim


@dataclass(frozen=True)
class Nothing:
    """A config without fields."""


class StillWorld(WorldModel):
    """Shows the start frame, whatever is done."""

    api_version = 2
    Config = Nothing

    def __init__(self, config: Nothing) -> None:
        self.config, self.device = config, torch.device("cpu")
        self.was_asked = False

    def reset(self, tasks: Sequence[Task], *, generator: torch.Generator | None = None) -> Any:
        self.was_asked = True
        return torch.stack([task.frames_TVHWC[-1] for task in tasks])

    def step(self, state: Any, actions_BLA: Tensor) -> Step:
        return Step(state[:, None].expand(-1, actions_BLA.shape[1], -1, -1, -1, -1).clone())


class Undecided(RewardModel):
    """Half a success for each rollout."""

    api_version = 2
    Config = Nothing

    def __init__(self, config: Nothing) -> None:
        self.config = config

    def score(self, rollouts: Sequence[Rollout]) -> list[Reward]:
        return [Reward(0.5) for _ in rollouts]


class Reinforce(Optimizer):
    """REINFORCE with the group's mean as baseline."""

    api_version = 2
    Config = Nothing

    def __init__(self, config: Nothing) -> None:
        self.config = config
        self.group_size, self.epochs, self.minibatch_size, self.max_grad_norm = 3, 1, 3, 1.0

    def torch_optimizer(self, parameters: Sequence[nn.Parameter]) -> torch.optim.Optimizer:
        return torch.optim.SGD(parameters, lr=0.1)

    def learning_rate(self, update: int) -> float:
        return 0.1

    def keep(self, judged: Judged) -> Tensor:
        return judged.valid_GK.any(1)

    def advantages(self, judged: Judged) -> Advantages:
        values_GK = judged.values_GK
        return Advantages.of_trajectories(values_GK - values_GK.nanmean(1, keepdim=True), judged)

    def loss(self, minibatch: Minibatch) -> LossSum:
        weighted_BSD = minibatch.log_prob_BSD * minibatch.advantages_BS[..., None]
        counted_BSD = torch.where(minibatch.mask_BS[..., None], weighted_BSD, 0.0)
        return LossSum(-counted_BSD.sum(), minibatch.mask_BS.sum())


def make_parts(tasks: Sequence[Task], config: Any = None) -> Parts:
    """The parts of a run on these tasks."""
    nothing = Nothing()
    return Parts(
        policy=StandInPolicy(),
        world_model=StillWorld(nothing),
        reward_model=Undecided(nothing),
        optimizer=Reinforce(nothing),
        tasks=tasks,
        config=config,
    )
