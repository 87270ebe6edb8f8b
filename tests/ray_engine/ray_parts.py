"""The dot on a line as an installed distribution, so that Ray's workers find its parts, and where they are at work."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[1] / "run"))  # in a worker, too

import bandit

from gymnast_core.config import ComponentConfig, LoopConfig, RunConfig
from gymnast_core.interfaces import Dataset, RewardModel
from gymnast_core.types import Reward, Rollout, Step, Task

ENTRY_POINTS = """\
[gymnast.world_models]
ray-line = ray_parts:World
[gymnast.policies]
ray-line = ray_parts:Policy
[gymnast.reward_models]
ray-line = ray_parts:Judge
[gymnast.datasets]
ray-line = ray_parts:Tasks
"""


class World(bandit.LineWorld):
    """Slips by chance, remembers a step, and says where it works."""

    @dataclass(frozen=True)
    class Config:
        device: str = "cpu"
        step_seconds: float = 0.0
        """What each step takes longer."""
        notes: str = ""
        """Folder in which a file says which process began an episode: its number is the file's name."""

    def __init__(self, config: Config) -> None:
        self.config = config

    def reset(self, tasks: Sequence[Task], *, generator: torch.Generator | None = None) -> dict[str, Any]:
        if self.config.notes:
            (Path(self.config.notes) / str(os.getpid())).touch()
        return {**super().reset(tasks, generator=generator), "generator": generator}

    def step(self, state: dict[str, Any], actions_BLA: Tensor) -> Step:
        time.sleep(self.config.step_seconds)
        slips_BLA = torch.rand(actions_BLA.shape, generator=state["generator"]) < 0.2
        return super().step(state, torch.where(slips_BLA, 0.0, actions_BLA))


class Policy(bandit.LinePolicy):
    """Has a weight that nobody trains, and that was drawn by chance."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.tilt = nn.Parameter(torch.randn(2) / 4, requires_grad=False)

    def _log_probs(self, batch: int, temperature: float | Tensor) -> Tensor:
        heat_B = torch.as_tensor(temperature).expand(batch)[:, None, None, None]
        logits = (self.logits + self.tilt) / torch.where(heat_B > 0, heat_B, 1.0)
        return logits.log_softmax(-1).expand(batch, self.chunk_length, 1, 2)


class Judge(RewardModel):
    """1 for dots that went right; sometimes it does not know, at first."""

    api_version = 2

    @dataclass(frozen=True)
    class Config:
        pass

    def __init__(self, config: Config) -> None:
        self.config = config

    def score(self, rollouts: Sequence[Rollout]) -> list[Reward]:
        moved = [bandit.place(rollout.view()[-1]) - bandit.place(rollout.view()[0]) for rollout in rollouts]
        return [Reward(float(distance > 0), numbers={"distance": float(distance)}) for distance in moved]


class Tasks(Dataset):
    api_version = 2

    @dataclass(frozen=True)
    class Config:
        pass

    def __init__(self, config: Config) -> None:
        self.config = config

    def tasks(self) -> Sequence[Task]:
        return [bandit.line_task(position) for position in (6, 7, 8, 9)]


def install(folder: Path) -> None:
    """Make the distribution in a folder, which then has to stand on the path."""
    info = folder / "ray_line-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: ray-line\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(ENTRY_POINTS)


def config(output: str, engine: ComponentConfig | None = None, world: dict[str, Any] | None = None, **loop: Any) -> Any:
    """A run of the dot, four groups of four in each of three iterations."""
    part = ComponentConfig("ray-line")
    settings = {
        "iterations": 3,
        "tasks_per_iteration": 4,
        "horizon": 4,
        "imagine_batch_size": 4,
        "max_draws": 2,
        **loop,
    }
    return RunConfig(
        ComponentConfig("ray-line", world or {}), part, part,
        ComponentConfig("grpo", {"group_size": 4, "learning_rate": 0.1}), part,
        loop=LoopConfig(**settings), trainer={"accelerator": "cpu"}, output=output, seed=3, check_saved=False,
        engine=engine or ComponentConfig("local"),
    )  # fmt: skip
