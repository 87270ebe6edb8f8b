"""What the tests of `gymnast collect` share."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from gymnast_collect.command import collect_command
from gymnast_collect.config import CollectConfig
from gymnast_core.config.typed import typed
from gymnast_core.interfaces import Policy
from gymnast_core.plugins.compose import registries
from gymnast_core.types import ActionChunk, Episode, Needs, Observation

HERE = "reach_environment:ReachHere-v0"
AWAY = "reach_environment:Reach-v0"
VIEW = {
    "cameras": {"front": "front", "top": "top"},
    "proprio": ["robot.place"],
    "proprio_dim": 2,
    "instruction_key": "task",
    "outcomes_key": "hindsight",
}


def config(output: Path | str | None, **changes: Any) -> CollectConfig:
    values = {
        "environments": [{"id": HERE, "name": "reach", "count": 4}],
        "view": VIEW,
        "actor": {"kind": "expert", "noise": {"white": [0.0, 0.5], "drift": 0.3}},
        "horizon": 10,
        "parallel": 3,
        "output": None if output is None else str(output),
    }
    if "actors" in changes:
        values.pop("actor")
    return typed(CollectConfig, values | changes)


def collect(output: Path, **changes: Any) -> dict[str, Any]:
    return collect_command(config(output, **changes))


def rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "attempts.jsonl").read_text().splitlines()]


def episodes(folder: Path, **args: Any) -> Sequence[Episode]:
    return registries().datasets.build("lerobot", {"path": str(folder / "episodes"), **args}).episodes()


def prints(folder: Path) -> dict[str, str]:
    """A digest of every file of a recording, and of its attempts."""
    files = [path for path in (folder / "episodes").rglob("*") if path.is_file()] + [folder / "attempts.jsonl"]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(files)}


class Follower(Policy):
    """Sees where the dot of the front camera is, and goes to the corner that the instruction names; at a temperature
    it trembles."""

    api_version = 2

    @dataclass(frozen=True)
    class Config:
        readings: bool = False
        """Look at the readings instead of the picture."""

    chunk_length, action_dim = 2, 2

    def __init__(self, config: Follower.Config) -> None:
        super().__init__()
        self.config = config

    @classmethod
    def needs(cls, config: Follower.Config) -> Needs:
        return Needs(("front",), history=2, proprio=2 if config.readings else None)

    def act(
        self, observation: Observation, *, temperature: float = 1.0, generator: torch.Generator | None = None
    ) -> ActionChunk:
        places = []
        for image_HWC in observation.latest_BVHWC[:, 0]:
            y, x = divmod(int(image_HWC[..., 0].argmax()), image_HWC.shape[1])
            places.append([(x + 0.5) / image_HWC.shape[1], (y + 0.5) / image_HWC.shape[0]])
        at_B2 = torch.tensor(places) if observation.latest_proprio_BP is None else observation.latest_proprio_BP
        goals = [[0.1, 0.1] if "top left" in words else [0.9, 0.9] for words in observation.instructions]
        step_B2 = ((torch.tensor(goals) - at_B2) * 5).clamp(-1, 1)
        actions_BLA = step_B2[:, None].repeat(1, 2, 1)
        actions_BLA = actions_BLA + temperature * torch.randn(actions_BLA.shape, generator=generator)
        return ActionChunk(actions_BLA, torch.zeros(len(step_B2), 2, 1))

    def evaluate(self, observation: Observation, chunk: ActionChunk, *, temperature: Any = 1.0) -> Any:
        raise NotImplementedError
