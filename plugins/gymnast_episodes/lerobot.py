"""Episodes of LeRobotDatasets (v2.0, v2.1, v3.0), read from their files: https://github.com/huggingface/lerobot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from gymnast_core.errors import DataError, unknown_name
from gymnast_core.interfaces import Dataset
from gymnast_core.types import Episode, one_camera
from gymnast_episodes import REPAIR
from gymnast_episodes.crops import Selection, frames_tensor, select
from gymnast_episodes.lerobot_layout import Entry, choose_camera, read_entries, read_info, read_tasks
from gymnast_episodes.lerobot_table import read_columns, read_images
from gymnast_episodes.video import read_frames, video_index


class LeRobotEpisodes(Dataset):
    """Episodes of one camera of a LeRobotDataset on disk. Actions are in the units in which they are stored.

    LeRobot stores an action for every frame; the last one of an episode leads to no frame and is dropped.
    """

    api_version = 2

    @dataclass(frozen=True, kw_only=True)
    class Config(Selection):
        path: str
        """Folder of the dataset, the one that holds `meta`."""
        camera: str | None = None
        """Feature with the frames, e.g. observation.images.front; null where there is only one."""
        action: str = "action"
        """Feature with the actions."""
        instruction: str | None = None
        """Instruction of the episodes that bring none."""

    def __init__(self, config: Config) -> None:
        self.config = config

    def episodes(self) -> Sequence[Episode]:
        return select(_Recording(self.config), self.config)


class _Recording:
    """A dataset's metadata, and its episodes by number."""

    def __init__(self, config: LeRobotEpisodes.Config) -> None:
        root = Path(config.path).expanduser()
        self._config, self._info, self.name = config, read_info(root), root.resolve().name
        self._camera = choose_camera(self._info, config.camera)
        features = self._info.features
        if config.action not in features:
            numbers = [key for key in features if key not in self._info.cameras()]
            raise DataError(f"{root}: {unknown_name('action feature', config.action, numbers)}")
        self._tasks = read_tasks(self._info)
        self._entries = read_entries(self._info, self._camera)

    def __len__(self) -> int:
        return len(self._entries)

    def label(self, episode: int) -> str:
        return f"{self._entries[episode].index:06d}"

    def frames(self, episode: int) -> int:
        return self._entries[episode].length

    def read(self, episode: int, start: int, stop: int, id: str) -> Episode:
        entry = self._entries[episode]
        path = self._info.root / entry.data
        rows = read_columns(path, self._config.action)
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
        if entry.video is None:
            frames_THWC = read_images(path, self._camera, chosen[start:stop])
        else:
            frames_THWC = self._video_frames(entry, rows.timestamp_N[chosen], start, stop)
        return Episode(
            id,
            self._instruction(entry, int(rows.task_N[chosen[start]])),
            one_camera(frames_tensor(frames_THWC, self._config.image_size)),
            torch.from_numpy(actions_TA),
            fps=self._info.fps,
        )

    def _video_frames(self, entry: Entry, seconds_T: NDArray[np.float64], start: int, stop: int) -> NDArray[np.uint8]:
        path = self._info.root / str(entry.video)
        index, first = video_index(path), 0
        if entry.video_start is not None or len(index) != entry.length:
            offset = entry.video_start or 0.0
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
