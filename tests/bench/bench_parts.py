"""The dot on a line as an installed distribution whose parts can be told to die, and what runs benches of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bandit
import torch
from torch import Tensor

from gymnast_core.interfaces import Dataset, RewardModel
from gymnast_core.types import Reward, Rollout, Step, Task

ENTRY_POINTS = """\
[gymnast.world_models]
line = bench_parts:World
[gymnast.policies]
line = bench_parts:Policy
[gymnast.reward_models]
line = bench_parts:Judge
[gymnast.datasets]
line = bench_parts:Tasks
"""


class World(bandit.LineWorld):
    @dataclass(frozen=True)
    class Config:
        die_with: str = ""
        """Name of the signal with which the process ends at its first step, as by a bug in native code."""
        step_seconds: float = 0.0
        """What each step takes longer."""
        flag: str = ""
        """File that is made at the first step."""

    def __init__(self, config: Config) -> None:
        self.config = config

    def step(self, state: dict[str, Tensor], actions_BLA: Tensor) -> Step:
        if self.config.die_with:
            os.kill(os.getpid(), signal.Signals[self.config.die_with])
        if self.config.flag:
            Path(self.config.flag).touch()
        time.sleep(self.config.step_seconds)
        return super().step(state, actions_BLA)


class Policy(bandit.LinePolicy):
    @dataclass(frozen=True)
    class Config:
        lean: float = 0.0
        """Logit of going right at the beginning, over going left."""

    def __init__(self, config: Config) -> None:
        super().__init__(bandit.LinePolicy.Config(2))
        self.config = config
        self.logits.data[1] = config.lean


class Judge(RewardModel):
    api_version = 2

    @dataclass(frozen=True)
    class Config:
        dollars: float = 0.0
        """Cost of a rollout."""

    def __init__(self, config: Config) -> None:
        self.config = config

    def score(self, rollouts: Sequence[Rollout]) -> list[Reward]:
        moved = [bandit.place(rollout.view()[-1]) - bandit.place(rollout.view()[0]) for rollout in rollouts]
        return [Reward(float(distance > 0), cost_usd=self.config.dollars) for distance in moved]


class Tasks(Dataset):
    api_version = 2

    @dataclass(frozen=True)
    class Config:
        pass

    def __init__(self, config: Config) -> None:
        self.config = config

    def tasks(self) -> Sequence[Task]:
        return [bandit.line_task(position) for position in (6, 7, 8, 9)]


BASE = """\
kind: train
world_model: line
policy: line
reward_model: line
optimizer: {name: grpo, args: {group_size: 6, learning_rate: 0.1, accuracy_bounds: [0.0, 1.0]}}
tasks: line
evaluation: {world: line, reward_model: line, tasks: line, videos: 0, temperature: 1.0}
loop: {iterations: 2, tasks_per_iteration: 2, horizon: 4, max_draws: 1}
trainer: {accelerator: cpu}
"""


def install(folder: Path) -> dict[str, str]:
    """Make the distribution and BASE as `line.yaml` in a folder; the environment in which it is installed."""
    info = folder / "line_parts-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: line-parts\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(ENTRY_POINTS)
    (folder / "line.yaml").write_text(BASE)
    here = Path(__file__).parent
    path = [str(folder), str(here), str(here.parent / "run")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path), "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}


def start(environment: dict[str, str], folder: Path, *arguments: str) -> subprocess.Popen[str]:
    """`gymnast bench ARGUMENTS` in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "gymnast_core.cli", "bench", *arguments], env=environment, cwd=folder,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def alive(marker: str) -> list[int]:
    """Processes with that text in their command line."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if marker.encode() in path.read_bytes():
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


def wait_until(condition: Any, seconds: float = 120.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "never happened"
        time.sleep(0.02)


torch.set_num_threads(1)
