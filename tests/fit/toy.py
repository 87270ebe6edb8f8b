"""A component small enough to follow by hand: a perceptron that learns the brightness of a frame under noise."""

from __future__ import annotations

import math
import os
import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, overload

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from gymnast_core.errors import DataError
from gymnast_core.interfaces import Dataset, Parts, RewardModel
from gymnast_core.plugins.compose import registries
from gymnast_core.seeds import episode_generators
from gymnast_core.types import Episode, LossSum, Metric, Reward, Rollout, one_camera


class Toy(RewardModel):
    api_version = 2

    @dataclass(frozen=True)
    class Config:
        width: int = 4
        explode_at: int | None = None
        """Training losses until one is NaN."""
        batch_norm: bool = True
        """Whether the network keeps running statistics, which couple the episodes of a microbatch."""
        weighed: bool = False
        """Whether an episode weighs its brightness, instead of as much as every other."""
        seconds: float = 0.0
        """Time that a training loss takes at least."""
        least: int = 0
        """Fewest actions of an episode that it learns from."""

    def __init__(self, config: Config) -> None:
        self.config, self.losses = config, 0
        norm = nn.BatchNorm1d(config.width) if config.batch_norm else nn.LayerNorm(config.width)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.network = nn.Sequential(nn.Linear(12, config.width), norm, nn.Tanh())
            self.network.append(nn.Linear(config.width, 1))

    @property
    def least_actions(self) -> int:  # type: ignore[override]
        return self.config.least

    def module(self) -> nn.Module:
        return self.network

    def score(self, rollouts: Sequence[Rollout]) -> list[Reward]:
        return [Reward(0.0) for _ in rollouts]

    def training_loss(self, episodes: Sequence[Episode], *, generator: torch.Generator) -> LossSum:
        time.sleep(self.config.seconds)
        assert all(len(episode.actions_TA) >= self.config.least for episode in episodes)
        pixels, brightness = numbers(episodes)
        own = episode_generators(generator, len(episodes))
        pixels = pixels + 0.1 * torch.stack([torch.randn(pixels.shape[1], generator=one) for one in own])
        weight_B = brightness if self.config.weighed else torch.ones(len(episodes))
        loss = ((self.network(pixels)[:, 0] - brightness).square() * weight_B).sum()
        self.losses += 1
        if self.losses == self.config.explode_at:
            loss = loss * math.nan
        metrics = {"brightest": Metric(brightness.max(), combine="max")}
        # An odd step's own metric: not every step has to log the same names.
        return LossSum(loss, weight_B.sum(), metrics | ({"odd": Metric(3.0)} if self.losses % 2 else {}))

    @torch.no_grad()
    def validate(self, episodes: Sequence[Episode], *, generator: torch.Generator) -> dict[str, float]:
        pixels, brightness = numbers(episodes)
        return {"error": (self.network(pixels)[:, 0] - brightness).square().mean().item()}

    def save(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        save_file(dict(self.network.state_dict()), str(directory / "model.safetensors"))


class Faulty(Toy):
    """A toy whose losses and numbers are wrong in the way that is said."""

    @dataclass(frozen=True)
    class Config(Toy.Config):
        way: str = ""

    config: Config

    def training_loss(self, episodes: Sequence[Episode], *, generator: torch.Generator) -> Any:
        found = super().training_loss(episodes, generator=generator)
        wrong = {
            "a tensor": found.total,
            "detached": LossSum(found.total.detach(), found.weight),
            "weightless": LossSum(found.total, 0.0),
            "negative": LossSum(found.total, -found.weight),
            "step": LossSum(found.total, found.weight, {"grad_norm": Metric(1.0)}),
            "validation": LossSum(found.total, found.weight, {"validation/error": Metric(1.0)}),
        }
        return wrong.get(self.config.way, found)

    def validate(self, episodes: Sequence[Episode], *, generator: torch.Generator) -> Any:
        found = super().validate(episodes, generator=generator)
        wrong = {"a list": list(found.values()), "a text": {"error": "low"}, "a comma": {"error,": 0.0}}
        return wrong.get(self.config.way, found)


class Counting(Toy):
    """A toy that knows more than its weights: how many losses it has given in all."""

    def __init__(self, config: Toy.Config) -> None:
        super().__init__(config)
        self.calls: list[str] = []

    def attach(self, parts: Parts) -> None:
        assert parts.reward_model is self
        self.calls.append("attach")

    def close(self) -> None:
        self.calls.append("close")

    def state_dict(self) -> dict[str, Any]:
        return {"losses": self.losses}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.losses = state["losses"]


class Drawing(Toy):
    """A toy that shows its weights, or fails to."""

    @dataclass(frozen=True)
    class Config(Toy.Config):
        torn: bool = False

    def illustrate(self, episodes: Sequence[Episode], directory: Path, *, generator: torch.Generator) -> None:
        assert not self.network.training and not torch.is_grad_enabled()
        if self.config.torn:
            (directory / "half").write_text("")
            raise OSError("No space left on device")
        save_file(dict(self.network.state_dict()), str(directory / "weights.safetensors"))
        (directory / "drawn").write_text(f"{len(episodes)} {torch.rand(1, generator=generator).item()}")


class ToyEpisodes(Dataset):
    api_version = 2

    @dataclass(frozen=True)
    class Config:
        count: int = 20
        size: int = 2
        length: int = 2
        action_dim: int = 1
        dark: bool = False
        """Whether every frame is black."""
        judged: bool = False
        """Whether two in three episodes say whether they succeeded."""
        short: list[int] = field(default_factory=list)
        """Episodes of which the first action alone was recorded."""
        tells: bool = False
        """Whether the lengths are known without reading."""
        bad: list[int] = field(default_factory=list)
        """Episodes that cannot be read."""
        deadly: int | None = None
        """Episode whose reader is killed."""

    def __init__(self, config: Config) -> None:
        self.config = config

    def episodes(self) -> Sequence[Episode]:
        generator = torch.Generator().manual_seed(1)
        config = self.config
        shape = (config.count, config.length, config.size, config.size, 3)
        frames = torch.randint(1 if config.dark else 256, shape, generator=generator, dtype=torch.uint8)
        actions_TA = torch.zeros(config.length - 1, config.action_dim)
        success = (None, True, False) if config.judged else (None,)
        lengths = [2 if i in config.short else config.length for i in range(config.count)]
        episodes = [
            Episode(str(i), "look", one_camera(f[:length]), actions_TA[: length - 1], success=success[i % len(success)])
            for i, (f, length) in enumerate(zip(frames, lengths, strict=True))
        ]
        return _Readable(episodes, config)


class _Readable(Sequence[Episode]):
    def __init__(self, episodes: list[Episode], config: ToyEpisodes.Config) -> None:
        self.episodes, self.config = episodes, config
        self.frames = [len(episode.frames_TVHWC) for episode in episodes] if config.tells else None

    def __len__(self) -> int:
        return len(self.episodes)

    @overload
    def __getitem__(self, index: int) -> Episode: ...
    @overload
    def __getitem__(self, index: slice) -> list[Episode]: ...
    def __getitem__(self, index: int | slice) -> Episode | list[Episode]:
        if index in self.config.bad:
            raise DataError(f"Episode {index} is torn.")
        if index == self.config.deadly:
            os.kill(os.getpid(), signal.SIGKILL)
        return self.episodes[index]


def numbers(episodes: Sequence[Episode]) -> tuple[Tensor, Tensor]:
    pixels = torch.stack([episode.view()[0].flatten() for episode in episodes]) / 255
    return pixels, pixels.mean(1)


def register() -> None:
    registries().reward_models.register("toy", Toy)
    registries().reward_models.register("toy-drawing", Drawing)
    registries().reward_models.register("toy-counting", Counting)
    registries().reward_models.register("toy-faulty", Faulty)
    registries().datasets.register("toy-episodes", ToyEpisodes)


def checkpoint(run: Path) -> dict[str, Tensor]:
    return load_file(str(run / "checkpoint" / "model.safetensors"))


def same(first: Path, second: Path) -> bool:
    names = "checkpoint/model.safetensors"
    return (first / names).read_bytes() == (second / names).read_bytes()
