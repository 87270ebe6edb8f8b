"""A small optimizer that shows what it was given, and a loop around the seeing policy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from seeing import CountingWorld, SeeingPolicy, UpReward, task
from torch import Tensor, nn

from gymnast_core.config import ComponentConfig, LoopConfig, RunConfig
from gymnast_core.interfaces import Optimizer, Parts
from gymnast_core.learning import Advantages, Judged, Minibatch
from gymnast_core.training.loop import ReinforcementLoop
from gymnast_core.training.record import RunRecord
from gymnast_core.training.trainer import build_trainer
from gymnast_core.types import LossSum, Metric


@dataclass
class Learner(Optimizer):
    """REINFORCE with ratios, averaged over actions that count; every minibatch is kept in `seen`."""

    api_version = 2
    config: Any = None
    group_size: int = 4
    epochs: int = 1
    minibatch_size: int = 6
    max_grad_norm: float = 100.0
    needs_reference: bool = False
    demonstrations_per_rollout: float = 0.0
    rate: float = 0.1
    seen: list[Minibatch] = field(default_factory=list)

    def torch_optimizer(self, parameters: Sequence[nn.Parameter]) -> torch.optim.Optimizer:
        return torch.optim.SGD(parameters, lr=self.rate)

    def learning_rate(self, update: int) -> float:
        return self.rate

    def keep(self, judged: Judged) -> Tensor:
        values_GK = judged.values_GK
        return (values_GK > 0.5).any(1) & (values_GK < 0.5).any(1)

    def advantages(self, judged: Judged) -> Advantages:
        values_GK = judged.values_GK.nan_to_num(0.0)
        return Advantages.of_trajectories(values_GK - values_GK.mean(1, keepdim=True), judged)

    def loss(self, minibatch: Minibatch) -> LossSum:
        self.seen.append(minibatch)
        ratio_BSD = (minibatch.log_prob_BSD - minibatch.old_log_prob_BSD).exp()
        gain_BS = ratio_BSD.mean(-1) * minibatch.advantages_BS * minibatch.mask_BS
        counted = minibatch.mask_BS.sum()
        return LossSum(-gain_BS.sum(), counted, {"ratio_max": Metric(ratio_BSD.detach().max(), combine="max")})


def loop_config(**loop: Any) -> RunConfig:
    part = ComponentConfig("unused")
    settings = {"iterations": 1, "tasks_per_iteration": 4, "horizon": 6, "temperature": 0.7, **loop}
    return RunConfig(part, part, part, part, part, loop=LoopConfig(**settings), seed=3)


def parts_of(policy: SeeingPolicy, config: RunConfig, learner: Learner, judge: UpReward | None = None) -> Parts:
    tasks = [task(f"task-{place}", place) for place in (3, 8, 20, 31)]
    return Parts(policy, CountingWorld(), judge or UpReward(), learner, tasks, (), config)


def train(
    folder: Path, parts: Parts, config: RunConfig, snapshot: Any = None, precision: str = "32-true"
) -> ReinforcementLoop:
    """Run the loop as `gymnast train` does, in this process."""
    config = replace(config, output=str(folder))
    loop = ReinforcementLoop(config, parts, precision)
    loop.record = RunRecord(config, parts, folder, 0 if snapshot is None else snapshot.state["iteration"])
    if snapshot is not None:
        loop.restore(snapshot)
    build_trainer({"accelerator": "cpu"}).fit(loop, loop.steps)
    return loop
