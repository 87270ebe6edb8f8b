"""Small policies and worlds, as command lines, for the tests of evaluations."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from gymnast_core.interfaces import RewardModel
from gymnast_core.types import Reward, Rollout

Command = Callable[..., tuple[int, str, str]]
"""Runs a command line: exit code, standard output, standard error."""

TOWER = "{patch_size: 16, width: 16, depth: 2, heads: 2}"
POLICY = (
    "{name: openvla-oft, args: {chunk_length: 2, unnorm_key: tabletop, architecture: {image_size: 32, seed: SEED, "
    f"dino: {TOWER}, siglip: {TOWER}, llm_width: 32, llm_layers: 1, llm_heads: 2, llm_intermediate: 32, "
    "n_action_bins: 16, action_low: [-0.02, -0.02], action_high: [0.02, 0.02], "
    "tokenizer_corpus: [push the red block to the left]}}}"
)
WORLD = (
    "{name: worldgym, args: {image_size: [32, 32], patch_size: 16, dim: 32, layers: 1, heads: 2, action_dim: 3, "
    "robot_action_dim: 2, window: 6, denoising_steps: 1, device: cpu}}"
)


def policy(seed: int) -> str:
    """A small policy with weights of that seed, as an override's value."""
    return POLICY.replace("SEED", str(seed))


def arguments(output: Path, *changes: str) -> list[str]:
    """Two small policies in the simulator and in a small world model, 4 actions; `changes` replace or add overrides."""
    base = [
        f"policies.first={policy(0)}",
        f"policies.second={policy(1)}",
        "worlds.simulator=gymnasium",
        "rewards.simulator={name: random, args: {probability: 0.5}}",
        f"worlds.imagination={WORLD}",
        "rewards.imagination={name: random, args: {probability: 0.5, seed: 1}}",
        "tasks={name: tabletop, args: {count: 6, image_size: 32, horizon: 4}}",
        "horizon=4",
        "episodes=5",
        "batch_size=3",
        "videos=2",
        f"output={output}",
    ]
    mine = tuple(change.partition("=")[0] for change in changes)
    kept = [item for item in base if not any(re.match(rf"{re.escape(key)}[.=]", item) for key in mine)]
    return ["evaluate", *kept, *changes]


SINGLE = (
    "policies={}", "worlds={}", "rewards={}", f"policy={policy(0)}", "world_model=gymnasium",
    "reward_model=listed-judge",
)  # fmt: skip
"""One policy in one world, judged by `Judge`."""


def summary(run: Path) -> Any:
    return json.loads((run / "summary.json").read_text())


class Judge(RewardModel):
    """Judges by a list of what to answer: a value, or None for an error; a dollar each."""

    api_version = 2

    answers: ClassVar[list[float | None]] = []
    announced: ClassVar[list[tuple[int, int]]] = []

    @dataclass(frozen=True)
    class Config:
        pass

    def __init__(self, config: Config) -> None:
        self.config = config

    def preflight(self, rollouts: int, frames: int) -> None:
        self.announced.append((rollouts, frames))

    def score(self, rollouts: Sequence[Rollout]) -> list[Reward]:
        found = [self.answers.pop(0) for _ in rollouts]
        return [
            Reward(None, error="overloaded", cost_usd=1.0) if value is None else Reward(value, cost_usd=1.0)
            for value in found
        ]
