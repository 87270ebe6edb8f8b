"""Episodes of LeRobotDatasets (v2.0, v2.1, v3.0), read from their files: https://github.com/huggingface/lerobot."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from gymnast_core.errors import DataError, unknown_name
from gymnast_core.interfaces import Dataset
from gymnast_core.types import Episode
from gymnast_episodes import REPAIR
from gymnast_episodes.crops import Selection, frames_tensor, select, stacked, wanted_cameras
from gymnast_episodes.foreign import folder
from gymnast_episodes.lerobot_layout import Entry, Video, camera_name, choose_cameras, read_entries, read_info
from gymnast_episodes.lerobot_table import Columns, read_columns, read_images
from gymnast_episodes.lerobot_tasks import TaskTable
from gymnast_episodes.lerobot_times import frames_of_rows
from gymnast_episodes.recording import Recording
from gymnast_episodes.video import read_chosen, video_index

STATE = "observation.state"
"""Where LeRobot keeps a robot's own readings."""
_RATE = 0.1
"""Share by which an episode may have been recorded faster or slower than the dataset says."""
_BOOKKEEPING = ("timestamp", "frame_index", "episode_index", "index", "task_index")


class LeRobotEpisodes(Dataset):
    """Episodes of a LeRobotDataset on disk. Actions and readings are in the units in which they are stored.

    Rows belong to episodes and frames by their indices, wherever they stand; timestamps say which frame of a video
    belongs to which row. LeRobot stores an action for every frame; the last one of an episode leads to no frame and is
    dropped.
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
        wanted_cameras(config.camera, config.cameras)

    def episodes(self) -> Sequence[Episode]:
        return select(_Source(self.config), self.config)


class _Source:
    """A dataset's metadata, and its episodes by number."""

    def __init__(self, config: LeRobotEpisodes.Config) -> None:
        root = folder(config.path, "Give the folder of a LeRobot dataset, the one that holds meta: path=DIR.")
        self._config, self._info, self.root, self.name = config, read_info(root), root, root.resolve().name
        self._cameras = choose_cameras(self._info, wanted_cameras(config.camera, config.cameras))
        features, short = self._info.features, [camera_name(camera) for camera in self._cameras]
        self._names = dict(zip(self._cameras, self._cameras if len(set(short)) < len(short) else short, strict=True))
        numbers = [key for key in features if key not in self._info.cameras()]
        if config.action not in numbers:
            raise DataError(f"{root}: {unknown_name('action feature', config.action, numbers)}")
        if config.proprio not in (None, STATE, *numbers):
            raise DataError(f"{root}: {unknown_name('feature of readings', str(config.proprio), numbers)}")
        self._proprio = config.proprio if config.proprio in numbers else None
        self._tasks = TaskTable(self._info)
        self._entries = read_entries(self._info, self._cameras, config.skip_bad)
        read = {*self._cameras, config.action, self._proprio, *_BOOKKEEPING}
        self.recording = Recording(
            robot=self._info.robot,
            action_names=features[config.action].names,
            proprio_names=None if self._proprio is None else features[self._proprio].names,
            left_out=tuple(key for key in features if key not in read),
        )

    def __len__(self) -> int:
        return len(self._entries)

    def label(self, episode: int) -> str:
        return f"{self._entries[episode].index:06d}"

    def frames(self, episode: int) -> int:
        return self._entries[episode].length

    def files(self, episode: int) -> Sequence[Path]:
        entry = self._entries[episode]
        return [self._info.root / name for name in (entry.data, *(video.path for video in entry.videos.values()))]

    def read(self, episode: int, start: int, stop: int, id: str) -> Episode:
        entry = self._entries[episode]
        rows = read_columns(self._info.root / entry.data, self._config.action, self._proprio)
        chosen_T = self._rows(entry, rows)
        part_T = chosen_T[start:stop]
        actions_TA = self._checked(entry, rows, self._config.action, rows.actions_NA[part_T[:-1]])
        proprio_TP = rows.proprio_NP
        if self._proprio is not None and proprio_TP is not None:
            proprio_TP = self._checked(entry, rows, self._proprio, proprio_TP[part_T])
        views = {}
        for camera in self._cameras:
            if camera in entry.videos:
                seconds_T = None if rows.timestamp_N is None else rows.timestamp_N[chosen_T]
                frames_THWC = self._video_frames(entry, entry.videos[camera], seconds_T, start, stop)
            else:
                frames_THWC = read_images(rows.path, camera, part_T)
            views[self._names[camera]] = frames_tensor(frames_THWC, self._config.image_size)
        # A crop knows neither how the episode ended, unless it ends with it, nor how to start where it begins.
        ends, begins = stop >= entry.length, start == 0
        return Episode(
            id,
            self._tasks.instruction(entry, int(rows.task_N[part_T[0]]), self._config.instruction),
            stacked(views, str(self._info.root)),
            torch.from_numpy(actions_TA),
            cameras=tuple(views),
            proprio_TP=None if proprio_TP is None else torch.from_numpy(proprio_TP),
            fps=self._info.fps,
            success=entry.labels.success if ends else None,
            outcomes=entry.labels.outcomes if ends else {},
            start=entry.labels.start if begins else None,
        )

    def _rows(self, entry: Entry, rows: Columns) -> NDArray[np.int64]:
        """The episode's rows of its file, in order."""
        if rows.episode_N is None and self._info.version == "v3.0":
            raise DataError(f"{rows.path} lacks the column episode_index, by which episodes are told apart.")
        chosen_T = rows.of_episode(entry.index)
        if len(chosen_T) != entry.length:
            raise DataError(
                f"{rows.path} has {len(chosen_T)} rows of episode {entry.index}, but the metadata says {entry.length} "
                f"frames. {REPAIR}"
            )
        if rows.timestamp_N is not None and len(chosen_T) > 1:
            passed, expected = np.ptp(rows.timestamp_N[chosen_T]), (len(chosen_T) - 1) / self._info.fps
            if not abs(passed - expected) <= _RATE * expected:
                raise DataError(
                    f"{rows.path}: the timestamps of episode {entry.index} span {passed:.3f} s; {entry.length} frames "
                    f"at the {self._info.fps:g} a second of meta/info.json span {expected:.3f} s. {REPAIR}"
                )
        return chosen_T

    def _checked(self, entry: Entry, rows: Columns, name: str, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Numbers of a feature (T, D), if they are as wide as the metadata says and finite."""
        shape = self._info.features[name].shape
        kind = "actions" if name == self._config.action else name
        if shape is not None and values.shape[1] != math.prod(shape):
            raise DataError(
                f"{rows.path}: {kind} are {list(values.shape[1:])} wide, meta/info.json says {list(shape)}. {REPAIR}"
            )
        if not np.isfinite(values).all():
            raise DataError(f"{rows.path}: {kind} of episode {entry.index} contain NaN or infinite values. {REPAIR}")
        return values

    def _video_frames(
        self, entry: Entry, video: Video, seconds_T: NDArray[np.float64] | None, start: int, stop: int
    ) -> NDArray[np.uint8]:
        path = self._info.root / video.path
        index = video_index(path)
        frames_T = frames_of_rows(path, index, video, seconds_T, self._info.fps, entry.length)
        return read_chosen(path, frames_T[start:stop])
