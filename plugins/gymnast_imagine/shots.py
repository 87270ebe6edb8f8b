"""What is to be imagined: for each video its start, its actions and what is known to have followed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from gymnast_core.errors import DataError
from gymnast_core.types import Episode, Task
from gymnast_imagine.action_sources import action_space, read_actions, sweep
from gymnast_imagine.config import ImagineConfig
from gymnast_imagine.rolling import chunks_of
from gymnast_imagine.starts import recorded, start_task


@dataclass(frozen=True)
class Line:
    """Variants of actions from one start, imagined as one batch."""

    title: str
    labels: tuple[str, ...]
    """What distinguishes the V variants; one empty label where there is one."""
    task: Task
    actions_VTA: Tensor
    """float32, robot units."""
    chunks: Sequence[int]
    recorded_TVHWC: Tensor | None = None
    """uint8 RGB, 1 + T frames: what the task's cameras saw."""


@dataclass(frozen=True)
class Shot:
    """One video."""

    name: str
    """Its file's name; with the seed it determines the noise."""
    title: str
    lines: Sequence[Line]


def plan(config: ImagineConfig, episodes: Sequence[Episode] | None) -> list[Shot]:
    """The videos that the config asks for. Raises `ConfigError` or `DataError` before anything is imagined."""
    if config.actions == "episode":
        assert episodes is not None
        return _episodes(config, episodes)
    return [_sweep(config, episodes) if config.actions == "sweep" else _file(config, episodes)]


def _episodes(config: ImagineConfig, episodes: Sequence[Episode]) -> list[Shot]:
    shots = []
    for one in recorded(config, episodes):
        steps = config.horizon or len(one.future.actions_TA)
        line = Line(
            title=one.future.instruction or one.future.id,
            labels=("",),
            task=one.task,
            actions_VTA=one.future.actions_TA[None, :steps].float(),
            chunks=chunks_of(steps, config.chunk),
            recorded_TVHWC=one.future.frames_TVHWC[: steps + 1],
        )
        title = f"Episode {one.index}: {one.future.instruction or one.future.id}"
        shots.append(Shot(f"episode-{one.index:05d}", title, [line]))
    return shots


def _file(config: ImagineConfig, episodes: Sequence[Episode] | None) -> Shot:
    assert config.file is not None
    actions_TA, chunks = read_actions(Path(config.file).expanduser(), config.chunk)
    if config.horizon is not None:
        if config.horizon > len(actions_TA):
            raise DataError(f"{config.file} has {len(actions_TA)} actions; set horizon={len(actions_TA)} or less.")
        actions_TA, chunks = actions_TA[: config.horizon], cut(chunks, config.horizon)
    task = start_task(config, episodes)
    line = Line(task.instruction or task.id, ("",), task, actions_TA[None], chunks)
    return Shot("actions", f"Actions of {Path(config.file).name} from {task.id}", [line])


def cut(chunks: Sequence[int], steps: int) -> list[int]:
    """The chunks of the first `steps` actions, the last one shortened where it has to be."""
    kept: list[int] = []
    for length in chunks:
        if left := steps - sum(kept):
            kept.append(min(length, left))
    return kept


def _sweep(config: ImagineConfig, episodes: Sequence[Episode] | None) -> Shot:
    space, task, steps = action_space(config, episodes), start_task(config, episodes), config.sweep.frames
    chunks = chunks_of(steps, config.chunk)
    actions_AVA, deviations_AV = sweep(space, config.sweep.values)
    lines = [Line("rest action", ("",), task, space.rest_A.repeat(1, steps, 1), chunks)]
    for name, actions_VA, deviations_V in zip(space.names, actions_AVA, deviations_AV, strict=True):
        labels = tuple(f"{value:+.3g}" if value else "0" for value in deviations_V.tolist())
        lines.append(Line(name, labels, task, torch.stack([actions_VA] * steps, dim=1), chunks))
    held = f"each action held for {steps} steps"
    return Shot("sweep", f"Sweep of {len(space.names)} action dimensions from {task.id}, {held}", lines)
