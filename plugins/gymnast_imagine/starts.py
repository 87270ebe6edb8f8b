"""Where imagination starts: an episode's frame, a task, or an image file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from gymnast_core.config import ComponentConfig
from gymnast_core.errors import ConfigError, DataError
from gymnast_core.plugins.compose import registries
from gymnast_core.types import Episode, Task, one_camera
from gymnast_episodes.images import resize
from gymnast_episodes.pictures import read_picture
from gymnast_imagine.config import ImagineConfig

DEFAULT_EPISODES = 4


@dataclass(frozen=True)
class Recorded:
    """An episode cut at the frame from which it is to be imagined."""

    index: int
    """In its dataset."""
    task: Task
    """The context frames and the actions between them."""
    future: Episode
    """From the last context frame on."""


def open_episodes(part: ComponentConfig) -> Sequence[Episode]:
    """The episodes of a dataset plugin. Raises `DataError` if there are none."""
    episodes = registries().datasets.build(part.name, part.args, key="episodes").episodes()
    if not len(episodes):
        raise DataError(f"The dataset {part.name!r} holds no episodes. Record some, or choose another.")
    return episodes


def recorded(config: ImagineConfig, episodes: Sequence[Episode]) -> list[Recorded]:
    """The chosen episodes, cut. Raises `DataError` for those that do not exist or are too short."""
    chosen = config.index if config.index is not None else range(min(DEFAULT_EPISODES, len(episodes)))
    cut = [_cut(config, index, _item(episodes, index, "episodes")) for index in chosen]
    if config.horizon is None:
        return cut
    for one in cut:
        steps = len(one.future.actions_TA)
        if steps < config.horizon:
            raise DataError(
                f"Episode {one.index} has {steps} actions after its start frame; horizon={config.horizon} asks for "
                f"more. Set horizon={steps} or less, or leave it out to take each episode to its end."
            )
    return cut


def start_task(config: ImagineConfig, episodes: Sequence[Episode] | None) -> Task:
    """The one start of a sweep, a file of actions or a keyboard session: image, task or episode, in this order."""
    index = config.index or [0]
    if len(index) > 1:
        raise ConfigError(f"index is {index}; actions={config.actions} starts from one. Give one, e.g. index=[0].")
    if config.image is not None:
        frames_THWC = _read_image(Path(config.image).expanduser(), config.image_size)
        return Task(Path(config.image).name, "", one_camera(frames_THWC))
    if config.tasks is not None:
        part = config.tasks
        tasks = registries().datasets.build(part.name, part.args, key="tasks").tasks()
        return _item(tasks, index[0], "tasks")
    if episodes is not None:
        return _cut(config, index[0], _item(episodes, index[0], "episodes"), needs_future=False).task
    raise ConfigError(
        f"actions={config.actions} has no frame to start from. Give image=FILE.png, tasks.name=DATASET or "
        "episodes.name=DATASET (`gymnast plugins` lists datasets)."
    )


def _item(items: Sequence, index: int, key: str):  # type: ignore[no-untyped-def,type-arg]
    if index >= len(items):
        known = f"0 to {len(items) - 1}" if len(items) else "none"
        raise DataError(f"There is no item {index} in {key}; there are {known}. Choose others with index=[...].")
    return items[index]


def _cut(config: ImagineConfig, index: int, episode: Episode, needs_future: bool = True) -> Recorded:
    frames, actions, proprio = episode.frames_TVHWC, episode.actions_TA, episode.proprio_TP
    start = config.start if config.start is not None else config.context - 1
    if start >= len(frames) - needs_future:
        raise DataError(
            f"Episode {index} has {len(frames)} frames, which leaves nothing to imagine after frame {start}. "
            "Set a smaller start or context, or choose other episodes with index=[...]."
        )
    if len(actions) != len(frames) - 1 or actions.ndim != 2:
        raise DataError(
            f"Episode {index} has {len(frames)} frames and actions of shape {tuple(actions.shape)}; "
            "it needs one action fewer than frames. Repair or leave out that episode."
        )
    if not torch.isfinite(actions).all():
        raise DataError(f"Episode {index} has actions that are NaN or infinite. Choose others with index=[...].")
    first = start - config.context + 1
    between = actions[first:start] if config.context > 1 else None
    task = Task(
        episode.id, episode.instruction, frames[first : start + 1], episode.cameras, between,
        None if proprio is None else proprio[first : start + 1],
    )  # fmt: skip
    future = Episode(episode.id, episode.instruction, frames[start:], actions[start:], episode.cameras)
    return Recorded(index, task, future)


def _read_image(path: Path, size: list[int] | None) -> torch.Tensor:
    """uint8 (1, H, W, 3), as `tasks: pictures` reads it."""
    try:
        frame_HWC = torch.from_numpy(read_picture(path, str(path), "Give a PNG or JPEG file."))
    except FileNotFoundError:
        raise DataError(f"There is no image {path}. Give the path of a PNG or JPEG file: image=FILE.") from None
    return (frame_HWC if size is None else resize(frame_HWC, size))[None]
