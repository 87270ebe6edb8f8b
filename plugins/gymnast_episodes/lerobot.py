"""Episodes of LeRobotDatasets (v2.0, v2.1, v3.0), read from their files: https://github.com/huggingface/lerobot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gymnast_core.errors import ConfigError, DataError, unknown_name
from gymnast_core.interfaces import Dataset
from gymnast_core.types import Episode
from gymnast_episodes import REPAIR
from gymnast_episodes.crops import Selection, frames_tensor, select
from gymnast_episodes.lerobot_layout import (
    Entry,
    Video,
    camera_name,
    choose_cameras,
    read_entries,
    read_info,
    read_tasks,
)
from gymnast_episodes.lerobot_table import read_columns, read_images
from gymnast_episodes.video import read_frames, video_index

STATE = "observation.state"
"""Where LeRobot keeps a robot's own readings."""


class LeRobotEpisodes(Dataset):
    """Episodes of a LeRobotDataset on disk. Actions and readings are in the units in which they are stored.

    LeRobot stores an action for every frame; the last one of an episode leads to no frame and is dropped.
    """

    api_version = 2

    @dataclass(frozen=True, kw_only=True)
    class Config(Selection):
        path: str
        """Folder of the dataset, the one that holds `meta`."""
        camera: str | None = None
        """Read this camera alone: its feature, e.g. observation.images.front, or its name, front."""
        cameras: list[str] = field(default_factory=list)
        """Cameras to read, the main one first, by feature or by name; empty: all of them, by name."""
        proprio: str | None = STATE
        """Feature with the proprioceptive readings; null reads none, and so does observation.state where the dataset
        has none."""
        action: str = "action"
        """Feature with the actions."""
        instruction: str | None = None
        """Instruction of the episodes that bring none."""

    def __init__(self, config: Config) -> None:
        self.config = config
        if config.camera is not None and config.cameras:
            raise ConfigError(f"Give camera={config.camera} or cameras=[{','.join(config.cameras)}], not both.")

    def episodes(self) -> Sequence[Episode]:
        return select(_Recording(self.config), self.config)


class _Recording:
    """A dataset's metadata, and its episodes by number."""

    def __init__(self, config: LeRobotEpisodes.Config) -> None:
        root = Path(config.path).expanduser()
        self._config, self._info, self.name = config, read_info(root), root.resolve().name
        self._cameras = choose_cameras(self._info, config.cameras if config.camera is None else [config.camera])
        features = self._info.features
        numbers = [key for key in features if key not in self._info.cameras()]
        if config.action not in features:
            raise DataError(f"{root}: {unknown_name('action feature', config.action, numbers)}")
        if config.proprio not in (None, STATE, *features):
            raise DataError(f"{root}: {unknown_name('feature of readings', str(config.proprio), numbers)}")
        self._proprio = config.proprio if config.proprio in features else None
        self._tasks = read_tasks(self._info)
        self._entries = read_entries(self._info, self._cameras)

    def __len__(self) -> int:
        return len(self._entries)

    def label(self, episode: int) -> str:
        return f"{self._entries[episode].index:06d}"

    def frames(self, episode: int) -> int:
        return self._entries[episode].length

    def read(self, episode: int, start: int, stop: int, id: str) -> Episode:
        entry = self._entries[episode]
        path = self._info.root / entry.data
        rows = read_columns(path, self._config.action, self._proprio)
        chosen = rows.of_episode(entry.index)
        if len(chosen) != entry.length:
            raise DataError(
                f"{path} has {len(chosen)} rows of episode {entry.index}, but the metadata says {entry.length} frames. "
                f"{REPAIR}"
            )
        actions_TA = rows.actions_NA[chosen[start : stop - 1]]
        expected = list(self._info.features[self._config.action].get("shape", actions_TA.shape[1:]))
        if list(actions_TA.shape[1:]) != expected:
            raise DataError(f"{path}: actions are {list(actions_TA.shape[1:])} wide, meta/info.json says {expected}.")
        if not np.isfinite(actions_TA).all():
            raise DataError(f"{path}: actions of episode {entry.index} contain NaN or infinite values. {REPAIR}")
        proprio_TP = None if rows.proprio_NP is None else rows.proprio_NP[chosen[start:stop]]
        if proprio_TP is not None and not np.isfinite(proprio_TP).all():
            raise DataError(f"{path}: {self._proprio} of episode {entry.index} has NaN or infinite values. {REPAIR}")
        views = []
        for camera in self._cameras:
            if camera in entry.videos:
                seconds_T = rows.timestamp_N[chosen]
                frames_THWC = self._video_frames(entry, entry.videos[camera], seconds_T, start, stop)
            else:
                frames_THWC = read_images(path, camera, chosen[start:stop])
            views.append(frames_tensor(frames_THWC, self._config.image_size))
        return Episode(
            id,
            self._instruction(entry, int(rows.task_N[chosen[start]])),
            self._together(views),
            torch.from_numpy(actions_TA),
            cameras=tuple(camera_name(camera) for camera in self._cameras),
            proprio_TP=None if proprio_TP is None else torch.from_numpy(proprio_TP),
            fps=self._info.fps,
        )

    def _together(self, views: Sequence[Tensor]) -> Tensor:
        """The cameras' frames (T, H, W, C) as (T, V, H, W, C)."""
        sizes = {camera_name(camera): tuple(view.shape[1:3]) for camera, view in zip(self._cameras, views, strict=True)}
        if len(set(sizes.values())) > 1:
            listed = ", ".join(f"{name} {height}x{width}" for name, (height, width) in sizes.items())
            raise DataError(
                f"The cameras of {self._info.root} differ in size ({listed}): resize them with image_size=[H,W], or "
                "choose with cameras=[…]."
            )
        return torch.stack(list(views), dim=1)

    def _video_frames(
        self, entry: Entry, video: Video, seconds_T: NDArray[np.float64], start: int, stop: int
    ) -> NDArray[np.uint8]:
        path = self._info.root / video.path
        index, first = video_index(path), 0
        if video.start is not None or len(index) != entry.length:
            offset = video.start or 0.0
            first = index.frame_at(offset + float(seconds_T[0]))
            last = first + entry.length - 1
            ends = [(first, seconds_T[0]), (last, seconds_T[-1])]
            late = [abs(index.seconds(i) - offset - float(s)) for i, s in ends if i < len(index)]
            if len(late) < 2 or max(late) > 0.5 / self._info.fps:
                raise DataError(
                    f"The video {path} does not show episode {entry.index}: {entry.length} frames from "
                    f"{offset:.3f} s on at {self._info.fps:g} a second are not there. {REPAIR}"
                )
        return read_frames(path, first + start, first + stop)

    def _instruction(self, entry: Entry, task: int) -> str:
        # An episode of several tasks says frame by frame which one it is about.
        named = entry.tasks if len(entry.tasks) == 1 else (self._tasks.get(task, ""), *entry.tasks)
        for text in (*named, self._config.instruction or ""):
            if text.strip():
                return text.strip()
        raise DataError(
            f"Episode {entry.index} of {self._info.root} has no instruction: it names no task. "
            'Give one for the whole dataset: instruction="...".'
        )
