"""Small worlds and clips for the tests."""

from __future__ import annotations

from typing import Any

import torch

from gymnast_core.types import Episode, Task, one_camera
from gymnast_worldgym.world_model import WorldGym

SIZE = dict(image_size=[16, 16], patch_size=8, dim=32, layers=2, heads=2, action_dim=4, robot_action_dim=3, window=5)


def world(**args: Any) -> WorldGym:
    """A small world, its zero-initialised maps shaken so that its frames depend on actions and noise."""
    model = WorldGym(WorldGym.Config(**{**SIZE, "device": "cpu", **args}))
    g = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in model.module().parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=g))
    return model


def tasks(count: int, frames: int = 1) -> list[Task]:
    g = torch.Generator().manual_seed(3)
    return [
        Task(
            f"task{i}",
            "push",
            one_camera(torch.randint(256, (frames, 16, 16, 3), dtype=torch.uint8, generator=g)),
            actions_TA=torch.randn(frames - 1, 3, generator=g) if frames > 1 else None,
        )
        for i in range(count)
    ]


def moving_dot(count: int, length: int = 8) -> list[Episode]:
    """A dot on a grey table that moves by the action's first two components, pixels."""
    g = torch.Generator().manual_seed(5)
    episodes = []
    for index in range(count):
        place = torch.randint(2, 10, (2,), generator=g)
        frames = torch.full((length, 16, 16, 3), 180, dtype=torch.uint8)
        actions = torch.zeros(length - 1, 3)
        for i in range(length):
            y, x = place.tolist()
            frames[i, y : y + 4, x : x + 4] = torch.tensor([255, 0, 0], dtype=torch.uint8)
            if i < length - 1:
                moved = (place + torch.randint(-2, 3, (2,), generator=g)).clamp(0, 12)
                actions[i, :2] = (moved - place).float()
                place = moved
        episodes.append(Episode(f"episode{index}", "push", one_camera(frames), actions))
    return episodes


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
