"""Rows of a LeRobotDataset's parquet files: actions, times and, where there are no videos, images."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gymnast_core.errors import DataError
from gymnast_episodes import REPAIR
from gymnast_episodes.foreign import reading
from gymnast_episodes.pictures import read_picture
from gymnast_episodes.tables import integers, matrix, numbers, open_table, read_table, row_groups


@dataclass(frozen=True)
class Columns:
    """The numbers of one parquet file, N rows in the file's order."""

    path: Path
    actions_NA: NDArray[np.float32]
    proprio_NP: NDArray[np.float32] | None
    """Proprioceptive readings; None where none are asked for."""
    episode_N: NDArray[np.int64] | None
    """None where the file has no such column: it then holds one episode."""
    frame_N: NDArray[np.int64] | None
    """Number of a row's frame in its episode; None where the file has no such column."""
    timestamp_N: NDArray[np.float64] | None
    """Seconds since the episode's start."""
    task_N: NDArray[np.int64]
    """Index into the tasks, -1 where unknown."""

    def of_episode(self, index: int) -> NDArray[np.int64]:
        """Rows of an episode in the order of its frames, wherever they stand in the file.

        Raises `DataError` if a frame is missing or there twice, or if nothing says which row comes first.
        """
        known = self.episode_N is None
        rows = np.arange(len(self.actions_NA)) if known else np.flatnonzero(self.episode_N == index)
        if self.frame_N is not None:
            rows = rows[np.argsort(self.frame_N[rows], kind="stable")]
            steps = np.diff(self.frame_N[rows])
            if (steps != 1).any():
                at = int(np.flatnonzero(steps != 1)[0])
                one, other = self.frame_N[rows[at]], self.frame_N[rows[at + 1]]
                raise DataError(
                    f"{self.path}: the frames of episode {index} are not whole: frame_index {one} is followed by "
                    f"{other}. {REPAIR}"
                )
        elif self.timestamp_N is not None:
            rows = rows[np.argsort(self.timestamp_N[rows], kind="stable")]
            if (np.diff(self.timestamp_N[rows]) <= 0).any():
                raise DataError(
                    f"{self.path}: two rows of episode {index} have one timestamp, and no frame_index. {REPAIR}"
                )
        else:
            raise DataError(f"{self.path} has neither frame_index nor timestamp: the order of its rows is not known.")
        return rows


def read_columns(path: Path, action: str, proprio: str | None = None) -> Columns:
    """The numbers of a file; remembered while it does not change, as files of v3.0 hold many episodes.

    Raises `DataError` if the file is missing or damaged, or its actions or readings are no table of numbers.
    """
    try:
        stat = path.stat()
    except OSError:
        raise DataError(f"The file {path} is missing. {REPAIR}") from None
    return _columns(path, stat.st_mtime_ns, stat.st_size, action, proprio)


def read_images(path: Path, camera: str, rows_T: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Frames that are stored as images in these rows of a file, in the order of `rows_T`, uint8 RGB (T, H, W, 3)."""
    stored = _cells(path, camera, rows_T)
    frames = [_image(path, camera, stored[row]) for row in rows_T.tolist()]
    if len({frame.shape for frame in frames}) != 1:
        raise DataError(f"{path}: the images of {camera!r} differ in size. {REPAIR}")
    return np.stack(frames)


def _cells(path: Path, camera: str, rows_T: NDArray[np.int64]) -> dict[int, object]:
    """What these rows hold, from the row groups that have them."""
    found: dict[int, object] = {}
    file = open_table(path, [camera])
    with reading(f"the file {path}"):
        ends_G = row_groups(path)
        group_T = np.searchsorted(ends_G, rows_T, side="right")
        for group in np.unique(group_T).tolist():
            wanted, before = rows_T[group_T == group], ends_G[group - 1] if group else 0
            cells = file.read_row_group(group, [camera])[camera].take(wanted - before).to_pylist()
            found |= dict(zip(wanted.tolist(), cells, strict=True))
    return found


def _image(path: Path, camera: str, value: object) -> NDArray[np.uint8]:
    content = value.get("bytes") if isinstance(value, dict) else value
    if not isinstance(content, bytes):
        raise DataError(f"{path} names images in other files; only images inside the file can be read.")
    return read_picture(content, f"an image of {camera} in {path}")


@lru_cache(maxsize=16)
def _columns(path: Path, modified_ns: int, size: int, action: str, proprio: str | None) -> Columns:
    matrices = [action] if proprio in (None, action) else [action, proprio]
    known = open_table(path, matrices).schema_arrow.names
    optional = [name for name in ("timestamp", "episode_index", "frame_index", "task_index") if name in known]
    table = read_table(path, [*matrices, *(name for name in optional if name not in matrices)])
    whole = {name: integers(path, table, name) for name in optional if name != "timestamp"}
    return Columns(
        path,
        matrix(path, table, action),
        None if proprio is None else matrix(path, table, proprio),
        whole.get("episode_index"),
        whole.get("frame_index"),
        numbers(path, table, "timestamp") if "timestamp" in optional else None,
        whole.get("task_index", np.full(table.num_rows, -1, np.int64)),
    )
