"""A component small enough to follow by hand: a perceptron that learns the brightness of a frame under noise."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from gymnast_core.interfaces import Dataset, Loss, RewardModel
from gymnast_core.registry import registries
from gymnast_core.types import Episode, Reward, Rollout


class Toy(RewardModel):
    @dataclass(frozen=True)
    class Config:
        width: int = 4
        explode_at: int | None = None
        """Training losses until one is NaN."""

    def __init__(self, config: Config) -> None:
        self.config, self.losses = config, 0
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.network = nn.Sequential(nn.Linear(12, config.width), nn.BatchNorm1d(config.width), nn.Tanh())
            self.network.append(nn.Linear(config.width, 1))

    def module(self) -> nn.Module:
        return self.network

    def score(self, rollouts: Sequence[Rollout]) -> list[Reward]:
        return [Reward(0.0) for _ in rollouts]

    def training_loss(self, episodes: Sequence[Episode], *, generator: torch.Generator) -> Loss:
        pixels, brightness = numbers(episodes)
        pixels = pixels + 0.1 * torch.randn(pixels.shape, generator=generator)
        loss = (self.network(pixels)[:, 0] - brightness).square().mean()
        self.losses += 1
        if self.losses == self.config.explode_at:
            loss = loss * math.nan
        # An odd step's own metric: not every step has to log the same names.
        return Loss(loss, {"odd": 3.0} if self.losses % 2 else {})

    @torch.no_grad()
    def validate(self, episodes: Sequence[Episode], *, generator: torch.Generator) -> dict[str, float]:
        pixels, brightness = numbers(episodes)
        return {"error": (self.network(pixels)[:, 0] - brightness).square().mean().item()}

    def save(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        save_file(dict(self.network.state_dict()), str(directory / "model.safetensors"))


class ToyEpisodes(Dataset):
    @dataclass(frozen=True)
    class Config:
        count: int = 20

    def __init__(self, config: Config) -> None:
        self.config = config

    def episodes(self) -> Sequence[Episode]:
        generator = torch.Generator().manual_seed(1)
        frames = torch.randint(256, (self.config.count, 2, 2, 2, 3), generator=generator, dtype=torch.uint8)
        return [Episode(str(i), "look", frames_THWC, torch.zeros(1, 1)) for i, frames_THWC in enumerate(frames)]


def numbers(episodes: Sequence[Episode]) -> tuple[Tensor, Tensor]:
    pixels = torch.stack([episode.frames_THWC[0].flatten() for episode in episodes]) / 255
    return pixels, pixels.mean(1)


def register() -> None:
    registries().reward_models.register("toy", Toy)
    registries().datasets.register("toy-episodes", ToyEpisodes)


def checkpoint(run: Path) -> dict[str, Tensor]:
    return load_file(str(run / "checkpoint" / "model.safetensors"))


def same(first: Path, second: Path) -> bool:
    names = "checkpoint/model.safetensors"
    return (first / names).read_bytes() == (second / names).read_bytes()
