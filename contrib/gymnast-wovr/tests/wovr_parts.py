"""Models of random weights, a judge of clips that can be foreseen, and rollouts made up for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from gymnast_core.config.ranges import Fraction, NotNegative
from gymnast_core.config.typed import typed
from gymnast_core.interfaces import RewardModel
from gymnast_core.plugins.compose import registries
from gymnast_core.types import EnvironmentStart, Reward, Rollout, Task, one_camera

COLOURS, DIRECTIONS = ("red", "green", "blue", "yellow"), ("left", "right", "top", "bottom")
INSTRUCTIONS = [f"push the {colour} block to the {side}" for colour in COLOURS for side in DIRECTIONS]
TOWER = {"patch_size": 16, "width": 16, "depth": 2, "heads": 2}
ARCHITECTURE = {
    "image_size": 32,
    "dino": TOWER,
    "siglip": TOWER,
    "llm_width": 32,
    "llm_layers": 1,
    "llm_heads": 2,
    "llm_intermediate": 32,
    "n_action_bins": 16,
    "tokenizer_corpus": INSTRUCTIONS[:1],
    "action_low": [-0.02, -0.02],
    "action_high": [0.02, 0.02],
}
POLICY = {"chunk_length": 2, "unnorm_key": "tabletop", "architecture": ARCHITECTURE}
WORLD = {
    "dim": 32, "layers": 1, "heads": 2, "patch_size": 16, "action_dim": 3, "robot_action_dim": 2, "window": 6,
    "image_size": [32, 32], "denoising_steps": 2,
}  # fmt: skip


class Brightness(RewardModel):
    """Judges a clip by its last frame alone: its mean level, as a share of 255; dark frames (0) cannot be judged."""

    api_version = 2

    @dataclass(frozen=True)
    class Config:
        threshold: Fraction = 0.5
        """Share from which on it is a success."""
        cost_usd: NotNegative = 0.25
        """US dollars a clip."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.closed = False
        self.asked: list[int] = []
        """Frames of every clip."""
        self.announced: tuple[int, int] | None = None

    def preflight(self, rollouts: int, frames: int) -> None:
        self.announced = (rollouts, frames)

    def score(self, rollouts: Any) -> list[Reward]:
        self.asked += [len(rollout.frames_TVHWC) for rollout in rollouts]
        return [self._score(rollout) for rollout in rollouts]

    def close(self) -> None:
        self.closed = True

    def _score(self, rollout: Rollout) -> Reward:
        cost = self.config.cost_usd
        level = float(rollout.view()[-1].float().mean()) / 255 if len(rollout.frames_TVHWC) else 0.0
        if level == 0.0:
            return Reward(None, error="It is too dark.", cost_usd=cost)
        return Reward(float(level >= self.config.threshold), partial=level, cost_usd=cost)


def make_rollout(levels: list[int], seed: int = 0, *, chunk: int = 2, **fields: Any) -> Rollout:
    """A rollout whose frame i has the grey level `levels[i]`; its actions and log-probabilities come from the seed."""
    generator = torch.Generator().manual_seed(seed)
    decisions = (len(levels) - 1) // chunk
    frames_TVHWC = one_camera(torch.tensor(levels, dtype=torch.uint8)[:, None, None, None].expand(-1, 4, 4, 3).clone())
    values: dict[str, Any] = {
        "task": Task(f"task-{seed}", "push", frames_TVHWC[:1], start=EnvironmentStart("Env-v0", 3)),
        "group": 0,
        "frames_TVHWC": frames_TVHWC,
        "actions_NLA": torch.rand(decisions, chunk, 2, generator=generator),
        "log_prob_NLD": -torch.rand(decisions, chunk, 2, generator=generator),
        "temperature": 1.0,
    }
    return Rollout(**(values | fields))


def build(kind: str, name: str, args: dict[str, Any]) -> Any:
    cls: Any = getattr(registries(), kind).load(name)
    return cls(typed(cls.Config, args))
