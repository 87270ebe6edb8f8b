"""Small made-up tasks, observations and rollouts."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from gymnast_core.types import ONE_CAMERA, Observation, Rollout, Task


def make_tasks(
    count: int,
    image_size: int = 64,
    seed: int = 0,
    *,
    cameras: Sequence[str] = ONE_CAMERA,
    proprio_dim: int | None = None,
) -> list[Task]:
    """Tasks with one context frame of uniform noise, uint8 (1, V, image_size, image_size, 3), and readings if asked."""
    frames = (uniform((count, 1, len(cameras), image_size, image_size, 3), seed) * 127.5 + 127.5).to(torch.uint8)
    readings = None if proprio_dim is None else uniform((count, 1, proprio_dim), seed + 2)
    colours = ("red", "green", "blue", "yellow")
    return [
        Task(
            f"check-{i}",
            f"push the {colours[i % 4]} block to the left",
            frames[i],
            tuple(cameras),
            proprio_TP=None if readings is None else readings[i],
        )
        for i in range(count)
    ]


def make_rollouts(tasks: Sequence[Task], action_dim: int = 7, chunks: int = 2, chunk: int = 3) -> list[Rollout]:
    """One rollout of N = `chunks` decisions for each task: frames of noise, dark and bright ones in turn."""
    rollouts = []
    for i, task in enumerate(tasks):
        start = task.frames_TVHWC[-1:]
        noise = (uniform((chunks * chunk, *start.shape[1:]), i) * 63.5 + (63.5, 191.5)[i % 2]).to(torch.uint8)
        actions_NLA = uniform((chunks, chunk, action_dim), i) * 0.1
        log_prob_NLD = torch.full((chunks, chunk, action_dim), -1.0)
        frames_TVHWC = torch.cat([start, noise])
        rollouts.append(Rollout(task, i, frames_TVHWC, actions_NLA, log_prob_NLD, 1.0, cameras=task.cameras))
    return rollouts


def observe(tasks: Sequence[Task], proprio_dim: int | None) -> Observation:
    """What a policy of one frame of history sees at the tasks' starts."""
    images_BTVHWC = torch.stack([task.frames_TVHWC[-1:] for task in tasks])
    proprio_BTP = None if proprio_dim is None else uniform((len(tasks), 1, proprio_dim), seed=2)
    return Observation(images_BTVHWC, tuple(task.instruction for task in tasks), tasks[0].cameras, proprio_BTP)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def uniform(shape: Sequence[int], seed: int) -> Tensor:
    """Uniform in [-1, 1)."""
    return torch.rand(tuple(shape), generator=seeded(seed)) * 2 - 1
