"""Small made-up tasks, observations and rollouts, of any cameras and readings."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from gymnast_core.rollouts.sight import find_sight
from gymnast_core.types import ONE_CAMERA, Needs, Observation, Offers, Rollout, Task

CHUNKS, CHUNK = 2, 3
"""Decisions a rollout, and actions a decision."""
COURSES = {"still": 0.0, "half-done": 0.5, "finished": 1.0, "noise": None}
"""What happens in made-up rollouts: how much of the way they go; None shows noise."""


def camera_names(cameras: Sequence[str] | int) -> tuple[str, ...]:
    """Names for cameras that were given as names or as a number."""
    if not isinstance(cameras, int):
        return tuple(cameras)
    return ONE_CAMERA if cameras == 1 else tuple(f"camera-{index + 1}" for index in range(cameras))


def make_tasks(
    count: int,
    image_size: int = 64,
    seed: int = 0,
    *,
    cameras: Sequence[str] | int = ONE_CAMERA,
    proprio_dim: int | None = None,
    context: int = 1,
    action_dim: int = 7,
) -> list[Task]:
    """Tasks that start from uniform noise, uint8 (`context`, V, image_size, image_size, 3).

    `proprio_dim` readings in [-1, 1) stand beside each frame; small actions lead from one context frame to the next.
    """
    names = camera_names(cameras)
    shape = (count, context, len(names), image_size, image_size, 3)
    frames_BTVHWC = (uniform(shape, seed) * 127.5 + 127.5).to(torch.uint8)
    colours = ("red", "green", "blue", "yellow")
    return [
        Task(
            f"check-{i}",
            f"push the {colours[i % 4]} block to the left",
            frames_BTVHWC[i],
            names,
            actions_TA=None if context == 1 else uniform((context - 1, action_dim), seed + i) * 0.1,
            proprio_TP=None if proprio_dim is None else uniform((context, proprio_dim), seed + 100 + i),
        )
        for i in range(count)
    ]


def make_rollouts(
    tasks: Sequence[Task], action_dim: int = 7, chunks: int = CHUNKS, chunk: int = CHUNK, *, course: str = "noise"
) -> list[Rollout]:
    """One rollout of N = `chunks` decisions for each task, on one of `COURSES`; noise is dark and bright in turn.

    The world knows whether a rollout succeeded, but of noise.
    """
    return [_rollout(task, index, COURSES[course], action_dim, chunks, chunk) for index, task in enumerate(tasks)]


def make_group(task: Task, group: int, action_dim: int = 7, chunks: int = CHUNKS, chunk: int = CHUNK) -> list[Rollout]:
    """One rollout of each of `COURSES`, all of one group."""
    return [_rollout(task, group, share, action_dim, chunks, chunk) for share in COURSES.values()]


def observe(tasks: Sequence[Task], needs: Needs = Needs()) -> Observation:  # noqa: B008
    """What a policy of these needs is shown at the tasks' start. Raises `ConfigError` if the tasks lack something."""
    proprio = None if tasks[0].proprio_TP is None else tasks[0].proprio_TP.shape[1]
    sight = find_sight(needs, Offers(tasks[0].cameras, proprio), tasks[0])
    starts = [sight.start(task) for task in tasks]
    readings = [proprio_TP for _, proprio_TP in starts if proprio_TP is not None]
    return sight.observe(
        torch.stack([frames_TVHWC for frames_TVHWC, _ in starts]),
        torch.stack(readings) if readings else None,
        [task.instruction for task in tasks],
    )


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def uniform(shape: Sequence[int], seed: int) -> Tensor:
    """Uniform in [-1, 1)."""
    return torch.rand(tuple(shape), generator=seeded(seed)) * 2 - 1


def _rollout(task: Task, group: int, share: float | None, action_dim: int, chunks: int, chunk: int) -> Rollout:
    """The first `share` of the way to the goal, at an even pace, and no further; None: noise."""
    horizon = chunks * chunk
    place_T = torch.linspace(0, 1, horizon + 1).clamp(max=1.0 if share is None else share)
    moving_S = (place_T[1:] > place_T[:-1]).float()
    if share is None:
        actions_SA = uniform((horizon, action_dim), group) * 0.1
    else:
        actions_SA = moving_S[:, None].expand(-1, action_dim) * 0.1
    outcome_S = (place_T[1:] >= 1.0).float()
    return Rollout(
        task=task,
        group=group,
        frames_TVHWC=_noise(task, horizon, group) if share is None else _way(task, place_T),
        actions_NLA=actions_SA.reshape(chunks, chunk, action_dim),
        log_prob_NLD=torch.full((chunks, chunk, action_dim), -1.0),
        temperature=1.0,
        cameras=task.cameras,
        proprio_TP=None if task.proprio_TP is None else task.proprio_TP[-1] + 0.1 * place_T[:, None],
        outcome_S=None if share is None else outcome_S,
    )


def _way(task: Task, place_T: Tensor) -> Tensor:
    """Frames at these places between the start (0) and the goal (1): where the expert was, if there is one, else a
    scene that moves to the right and becomes brighter."""
    start_VHWC = task.frames_TVHWC[-1]
    if task.expert is not None and task.expert.frames_TVHWC.shape[1:] == start_VHWC.shape:
        shown_TVHWC = task.expert.frames_TVHWC
        indices = (place_T * (len(shown_TVHWC) - 1)).round().long()
        return torch.cat([start_VHWC[None], shown_TVHWC[indices[1:]]])
    frames = []
    for place in place_T.tolist():
        moved_VHWC = start_VHWC.roll(round(place * start_VHWC.shape[2] / 4), dims=2).int()
        frames.append((moved_VHWC + round(64 * place)).clamp(max=255).to(torch.uint8))
    return torch.stack(frames)


def _noise(task: Task, horizon: int, seed: int) -> Tensor:
    """Dark for even seeds, bright for odd ones."""
    start_1VHWC = task.frames_TVHWC[-1:]
    noise = uniform((horizon, *start_1VHWC.shape[1:]), seed) * 63.5 + (63.5, 191.5)[seed % 2]
    return torch.cat([start_1VHWC, noise.to(torch.uint8)])
