"""Rows of a LeRobotDataset's parquet files: actions, times and, where there are no videos, images."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from gymnast_core.errors import DataError
from gymnast_episodes import REPAIR
from gymnast_episodes.lerobot_layout import open_table, read_table


@dataclass(frozen=True)
class Columns:
    """The numbers of one parquet file, N rows."""

    actions_NA: NDArray[np.float32]
    proprio_NP: NDArray[np.float32] | None
    """Proprioceptive readings; None where none are asked for."""
    episode_N: NDArray[np.int64] | None
    """None where the file has no such column: it then holds one episode."""
    timestamp_N: NDArray[np.float64]
    """Seconds since the episode's start."""
    task_N: NDArray[np.int64]
    """Index into the tasks, -1 where unknown."""

    def of_episode(self, index: int) -> NDArray[np.int64]:
        """Rows of an episode, in order."""
        if self.episode_N is None:
            return np.arange(len(self.actions_NA))
        return np.flatnonzero(self.episode_N == index)


def read_columns(path: Path, action: str, proprio: str | None = None) -> Columns:
    """The numbers of a file; remembered while it does not change, as files of v3.0 hold many episodes.

    Raises `DataError` if the file is missing or damaged, or its actions or readings are no table of numbers.
    """
    return _columns(path, path.stat().st_mtime_ns if path.is_file() else 0, action, proprio)


def read_images(path: Path, camera: str, rows_T: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Frames that are stored as images in consecutive rows of a file, uint8 RGB (T, H, W, 3)."""
    first, last, frames, before = int(rows_T[0]), int(rows_T[-1]), [], 0
    try:
        file = open_table(path, [camera])
        for group in range(file.num_row_groups):
            count = file.metadata.row_group(group).num_rows
            if before <= last and before + count > first:
                stored = file.read_row_group(group, [camera])[camera]
                chosen = stored.slice(max(first - before, 0), last + 1 - max(first, before))
                frames += [_image(path, value) for value in chosen.to_pylist()]
            before += count
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"The file {path} cannot be read: {error}. {REPAIR}") from error
    if len({frame.shape for frame in frames}) != 1:
        raise DataError(f"{path}: the images of {camera!r} differ in size. {REPAIR}")
    return np.stack(frames)


def _image(path: Path, value: object) -> NDArray[np.uint8]:
    content = value.get("bytes") if isinstance(value, dict) else value
    if not isinstance(content, bytes):
        raise DataError(f"{path} names images in other files; only images inside the file can be read.")
    try:
        with Image.open(BytesIO(content)) as image:
            return np.array(image.convert("RGB"))
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise DataError(f"{path} holds a damaged image: {error}. {REPAIR}") from error


@lru_cache(maxsize=16)
def _columns(path: Path, modified_ns: int, action: str, proprio: str | None) -> Columns:
    matrices = [action] if proprio in (None, action) else [action, proprio]
    known = open_table(path, [*matrices, "timestamp"]).schema_arrow.names
    optional = [name for name in ("episode_index", "task_index") if name in known]
    table = read_table(path, [*matrices, "timestamp", *optional])
    try:
        actions_NA = _matrix(table[action].combine_chunks())
        proprio_NP = None if proprio is None else _matrix(table[proprio].combine_chunks())
        numbers = {name: table[name].to_numpy().astype(np.int64) for name in optional}
        seconds_N = table["timestamp"].to_numpy().astype(np.float64)
    except (ValueError, TypeError, pa.ArrowException) as error:
        raise DataError(
            f"{path}: {' and '.join(matrices)} must hold lists of numbers of one length, the other columns one number "
            f"a row "
            f"({error}). {REPAIR}"
        ) from error
    unknown_N = np.full(len(seconds_N), -1, np.int64)
    task_N = numbers.get("task_index", unknown_N)
    return Columns(actions_NA, proprio_NP, numbers.get("episode_index"), seconds_N, task_N)


def _matrix(column: pa.Array) -> NDArray[np.float32]:
    """(N, A); a column of plain numbers is one wide."""
    is_list = pa.types.is_list(column.type) or pa.types.is_fixed_size_list(column.type)
    if not is_list or not len(column):
        return column.to_numpy(zero_copy_only=False).astype(np.float32).reshape(len(column), -1 if len(column) else 0)
    lengths = np.unique(column.value_lengths().to_numpy(zero_copy_only=False))
    if len(lengths) != 1 or column.null_count:
        raise ValueError(f"lengths {lengths.tolist()}")
    return column.flatten().to_numpy(zero_copy_only=False).astype(np.float32).reshape(len(column), -1)
