"""Recordings of a robot with seven actions, for the pages that begin with some: successes and failures of two tasks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from gymnast_core.interfaces import Dataset
from gymnast_core.plugins.compose import registries
from gymnast_core.types import Episode, one_camera
from gymnast_episodes.conversion import Conversion, convert
from gymnast_episodes.writers import WriterOptions

TASKS = ("put the carrot on the plate", "open the drawer")
FRAMES, SIZE, EPISODES = 21, 64, 14


class Recorded(Dataset):
    """A square that moves as the first two actions say."""

    api_version = 2

    @dataclass(frozen=True)
    class Config:
        """Nothing to choose."""

    def __init__(self, config: Config) -> None:
        self.config = config

    def episodes(self) -> list[Episode]:
        return [_episode(number) for number in range(EPISODES)]


def write(folder: Path) -> Path:
    """A LeRobotDataset of them."""
    known = registries().datasets
    known.register("recorded-for-the-docs", Recorded)
    try:
        convert(Conversion("recorded-for-the-docs", {}, "lerobot-v3", folder, WriterOptions()))
    finally:
        registries.cache_clear()
    return folder


def _episode(number: int) -> Episode:
    chance = torch.Generator().manual_seed(number)
    scale = torch.tensor([0.02, 0.02, 0.02, 0.1, 0.1, 0.1, 1.0])
    actions_TA = (torch.rand(FRAMES - 1, 7, generator=chance) * 2 - 1) * scale
    frames_THWC = torch.full((FRAMES, SIZE, SIZE, 3), 90, dtype=torch.uint8)
    places_TX = 32 + torch.cat([torch.zeros(1, 2), actions_TA[:, :2].cumsum(0) * 100])
    for frame_HWC, (x, y) in zip(frames_THWC, places_TX.clamp(6, 57).int().tolist(), strict=True):
        frame_HWC[y - 5 : y + 5, x - 5 : x + 5] = torch.tensor([220, 40, 40], dtype=torch.uint8)
    return Episode(
        f"recorded-{number}", TASKS[number % 2], one_camera(frames_THWC), actions_TA, fps=5.0, success=number % 4 < 2
    )
