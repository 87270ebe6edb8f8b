"""WorldGym's training data (arXiv 2506.00613): a folder of `NAME.mp4`, each with its actions in `NAME.npz`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast
from zipfile import ZipFile

import numpy as np
import torch
from numpy.typing import NDArray

from gymnast_core.config.ranges import Count
from gymnast_core.errors import DataError
from gymnast_core.interfaces import Dataset
from gymnast_core.reading import read_object
from gymnast_core.types import Episode, one_camera
from gymnast_episodes import REPAIR
from gymnast_episodes.crops import Selection, frames_tensor, select
from gymnast_episodes.foreign import data_files, folder, reading, writable
from gymnast_episodes.recording import Recording
from gymnast_episodes.robots import robot
from gymnast_episodes.video import read_frames, video_index


class WorldGymEpisodes(Dataset):
    """Episodes from `NAME.mp4` + `NAME.npz`, where `arr_0` (T, 10) pairs frame i with the action chosen at it.

    The last stored action leads to no frame and is dropped. Instructions come from `NAME.json`
    ({"instruction": "..."}), `NAME.txt`, or the `instruction` option.
    """

    api_version = 2

    @dataclass(frozen=True, kw_only=True)
    class Config(Selection):
        path: str
        """Folder, searched recursively."""
        robot: str | None = "bridge"
        """Robot whose units the actions are turned into; null gives the stored numbers, in the model's units."""
        instruction: str | None = None
        """Instruction of the episodes that bring none."""
        action_dim: Count = 10
        """Width of the stored actions."""

    def __init__(self, config: Config) -> None:
        self.config = config
        if config.robot is not None:
            robot(config.robot)

    def episodes(self) -> Sequence[Episode]:
        return select(_Folder(self.config), self.config)


class _Folder:
    """The pairs of files of a folder."""

    def __init__(self, config: WorldGymEpisodes.Config) -> None:
        self.root = folder(config.path, "Give the folder with NAME.mp4 and NAME.npz: path=FOLDER.")
        self._config, self.name = config, self.root.resolve().name
        videos = data_files(self.root.rglob("*.mp4"))
        self._labels = sorted(video.relative_to(self.root).with_suffix("").as_posix() for video in videos)
        self.recording = Recording(robot=config.robot)
        if not self._labels:
            raise DataError(f"No .mp4 files under {self.root}. Episodes are pairs of NAME.mp4 and NAME.npz.")

    def __len__(self) -> int:
        return len(self._labels)

    def label(self, episode: int) -> str:
        return self._labels[episode]

    def frames(self, episode: int) -> int:
        self._instruction(episode)
        return len(self._stored_actions(episode))

    def files(self, episode: int) -> Sequence[Path]:
        return [self._file(episode, suffix) for suffix in (".mp4", ".npz", ".json", ".txt")]

    def read(self, episode: int, start: int, stop: int, id: str) -> Episode:
        video, stored = self._file(episode, ".mp4"), self._stored_actions(episode)
        if len(video_index(video)) != len(stored):
            raise DataError(
                f"{video} has {len(video_index(video))} frames, but {video.with_suffix('.npz').name} has {len(stored)} "
                f"actions; there must be one for each frame. {REPAIR}"
            )
        actions_TA = torch.from_numpy(stored[start : stop - 1].copy())
        if self._config.robot is not None:
            try:
                actions_TA = robot(self._config.robot).from_model(actions_TA)
            except DataError as error:
                raise DataError(f"{video.with_suffix('.npz')}: {error}") from error
        frames_THWC = frames_tensor(read_frames(video, start, stop), self._config.image_size)
        fps = video_index(video).fps
        return Episode(id, self._instruction(episode), one_camera(frames_THWC), actions_TA, fps=fps)

    def _file(self, episode: int, suffix: str) -> Path:
        return self.root / (self._labels[episode] + suffix)

    def _stored_actions(self, episode: int) -> NDArray[np.float32]:
        return read_actions(self._file(episode, ".npz"), self._config.action_dim)

    def _instruction(self, episode: int) -> str:
        about, plain = self._file(episode, ".json"), self._file(episode, ".txt")
        text = self._config.instruction
        if about.exists():
            text = read_object(about, allow_nan=True).text("instruction", default=text)
        elif plain.exists():
            with reading(f"the instruction in {plain}", "Repair the file."):
                text = plain.read_text(encoding="utf-8-sig")
        if text is not None and not writable(text):
            raise DataError(f"{about}: the instruction is {text!r}, which cannot be written as text.")
        if text is None or not text.strip():
            raise DataError(
                f"No instruction for {self._file(episode, '.mp4')}. Put one in {about.name} "
                '({"instruction": "..."}) or '
                f'{plain.name}, or give one for the whole folder: instruction="...".'
            )
        return text.strip()


def read_actions(path: Path, width: int) -> NDArray[np.float32]:
    """`arr_0` of an .npz, float32 (T, width). Raises `DataError` naming the file; never unpickles."""
    advice = "It must be a .npz with the numbers under 'arr_0' (np.savez)."
    try:
        with reading(f"the actions in {path}", advice):
            archive = np.load(path, allow_pickle=False)
            if not isinstance(archive, np.lib.npyio.NpzFile) or "arr_0" not in archive:
                held = ", ".join(archive) if isinstance(archive, np.lib.npyio.NpzFile) else "one array (.npy)"
                raise DataError(f"{path} holds {held}. {advice}")
            with archive:
                stored = _unpickled(path, archive, advice)
    except FileNotFoundError:
        raise DataError(f"No {path.name} beside {path.with_suffix('.mp4')}: the episode has no actions.") from None
    if stored.ndim != 2 or stored.shape[1] != width or stored.dtype.kind not in "fiu":
        raise DataError(
            f"{path}: arr_0 is {stored.dtype} {stored.shape}; it must be numbers of shape (frames, {width}). "
            "Set action_dim if these actions have another width."
        )
    if not np.isfinite(stored).all():
        bad = int(np.flatnonzero(~np.isfinite(stored).all(axis=1))[0])
        raise DataError(f"{path}: action {bad} contains NaN or infinite values. {REPAIR}")
    return stored.astype(np.float32)


def _unpickled(path: Path, archive: np.lib.npyio.NpzFile, advice: str) -> NDArray:
    """`arr_0`; objects, which numpy advises to trust, are refused."""
    with cast(ZipFile, archive.zip).open("arr_0.npy") as file:
        version = np.lib.format.read_magic(file)
        read_header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        if version in read_header and read_header[version](file)[2].hasobject:
            raise DataError(f"Cannot read the actions in {path}: it holds pickled objects. {advice}")
    return archive["arr_0"]
