"""Where a LeRobotDataset keeps its episodes: the metadata of the formats v2.0, v2.1 and v3.0.

Formats: https://huggingface.co/docs/lerobot/lerobot-dataset-v3 and, for v2, the `meta/*.jsonl` files beside it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from gymnast_core.errors import DataError, unknown_name
from gymnast_episodes import REPAIR

VERSIONS = ("v2.0", "v2.1", "v3.0")
CAMERA_PREFIX = "observation.images."
"""How LeRobot names the features of cameras."""


@dataclass(frozen=True)
class Info:
    """The parts of `meta/info.json` that reading needs."""

    root: Path
    version: str
    fps: float
    """Frames a second."""
    features: Mapping[str, Mapping[str, Any]]
    """Column or camera -> {"dtype": ..., "shape": ...}."""
    data_path: str
    """Template of the parquet files' paths."""
    video_path: str
    """Template of the videos' paths; empty where there are none."""
    chunks_size: int
    """Episodes (v2) or files (v3) a folder."""

    def cameras(self) -> list[str]:
        return sorted(key for key, about in self.features.items() if about.get("dtype") in ("video", "image"))


@dataclass(frozen=True)
class Video:
    """Where one camera's frames of one episode are."""

    path: str
    """Relative to the root."""
    start: float | None
    """Seconds at which the episode starts in it; None where the video is the episode's own."""


@dataclass(frozen=True)
class Entry:
    """Where one episode is."""

    index: int
    length: int
    """Frames."""
    tasks: tuple[str, ...]
    """Instructions that the metadata names."""
    data: str
    """Parquet file, relative to the root."""
    videos: Mapping[str, Video]
    """By camera; those whose frames are stored in the parquet file have none."""


def read_info(root: Path) -> Info:
    """`meta/info.json`. Raises `DataError` if it is missing, incomplete or of an unknown version."""
    path = root / "meta" / "info.json"
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
        version = str(about["codebase_version"])
        if version not in VERSIONS:
            raise DataError(
                f"{path}: codebase_version {version!r} cannot be read; known: {', '.join(VERSIONS)}. "
                "Convert the dataset with LeRobot's own scripts."
            )
        return Info(
            root=root,
            version=version,
            fps=float(about["fps"]),
            features={str(key): dict(value) for key, value in about["features"].items()},
            data_path=str(about["data_path"]),
            video_path=str(about.get("video_path") or ""),
            chunks_size=int(about.get("chunks_size", 1000)),
        )
    except FileNotFoundError:
        raise DataError(f"{root} is no LeRobot dataset: it has no meta/info.json. Give its folder: path=DIR.") from None
    except KeyError as error:
        raise DataError(f"{path} lacks {error}. Download the dataset again.") from error
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise DataError(f"{path} cannot be read: {error}. Download the dataset again.") from error


def choose_cameras(info: Info, wanted: Sequence[str]) -> tuple[str, ...]:
    """The features of the wanted cameras, which are named by feature or short (`camera_name`); all where none is
    wanted. Raises `DataError` that lists them."""
    cameras = info.cameras()
    if not cameras:
        raise DataError(f"{info.root} has no camera: none of its features is a video or an image.")
    by_name = {camera_name(camera): camera for camera in cameras}
    chosen = [by_name.get(name, name) for name in wanted]
    for name in chosen:
        if name not in cameras:
            raise DataError(f"{info.root}: {unknown_name('camera', name, cameras)}")
    if len(set(chosen)) < len(chosen):
        raise DataError(f"{info.root}: cameras names one of them twice: {', '.join(wanted)}.")
    return tuple(chosen or cameras)


def camera_name(feature: str) -> str:
    """What episodes call a camera: "front" for observation.images.front."""
    return feature.removeprefix(CAMERA_PREFIX)


def read_tasks(info: Info) -> dict[int, str]:
    """Instructions by `task_index`. Empty where the dataset has no table of them."""
    if info.version == "v3.0":
        path = info.root / "meta" / "tasks.parquet"
        if not path.is_file():
            return {}
        table = read_table(path)
        # Written by pandas, whose row labels (the instructions) may be stored under several names.
        texts = [name for name in table.column_names if name != "task_index"]
        if "task_index" not in table.column_names or not texts:
            raise DataError(f"{path} has the columns {table.column_names}; it must have task_index and the task.")
        name = "task" if "task" in texts else texts[0]
        return dict(zip(map(int, table["task_index"].to_pylist()), map(str, table[name].to_pylist()), strict=True))
    path = info.root / "meta" / "tasks.jsonl"
    if not path.is_file():
        return {}
    return {_field(row, "task_index", path, int): _field(row, "task", path, str) for row in _json_lines(path)}


def read_entries(info: Info, cameras: Sequence[str]) -> list[Entry]:
    """All episodes in order. Raises `DataError` for metadata that is missing or incomplete."""
    on_video = [camera for camera in cameras if info.features[camera]["dtype"] == "video"]
    rows = _rows_v3(info, on_video) if info.version == "v3.0" else _rows_v2(info)
    entries = [_entry(info, on_video, row, path) for row, path in rows]
    if not entries:
        raise DataError(f"{info.root} has no episodes in its metadata.")
    return sorted(entries, key=lambda entry: entry.index)


def open_table(path: Path, columns: list[str]) -> pq.ParquetFile:
    """A parquet file that has these columns. Raises `DataError` if it is missing, damaged or lacks one."""
    try:
        # Not through the dataset layer, which would take folder names for columns.
        file = pq.ParquetFile(path)
    except FileNotFoundError:
        raise DataError(f"The file {path} is missing. {REPAIR}") from None
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"The file {path} cannot be read: {error}. {REPAIR}") from error
    known = file.schema_arrow.names
    if missing := [name for name in columns if name not in known]:
        raise DataError(f"{path} lacks the column {', '.join(missing)}; it has {', '.join(known)}.")
    return file


def read_table(path: Path, columns: list[str] | None = None) -> pa.Table:
    """All rows of a parquet file. Raises `DataError` as `open_table` does."""
    file = open_table(path, columns or [])
    try:
        return file.read(columns)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"The file {path} cannot be read: {error}. {REPAIR}") from error


def _rows_v2(info: Info) -> Iterator[tuple[dict[str, Any], Path]]:
    path = info.root / "meta" / "episodes.jsonl"
    yield from ((row, path) for row in _json_lines(path))


def _rows_v3(info: Info, on_video: Sequence[str]) -> Iterator[tuple[dict[str, Any], Path]]:
    folder = info.root / "meta" / "episodes"
    paths = sorted(folder.glob("*/*.parquet"))
    if not paths:
        raise DataError(f"{folder} has no parquet files: the episodes are missing. Download the dataset again.")
    columns = ["episode_index", "length", "tasks", "data/chunk_index", "data/file_index"]
    for camera in on_video:
        columns += [f"videos/{camera}/{name}" for name in ("chunk_index", "file_index", "from_timestamp")]
    for path in paths:
        yield from ((row, path) for row in read_table(path, columns).to_pylist())


def _entry(info: Info, on_video: Sequence[str], row: dict[str, Any], source: Path) -> Entry:
    def number(name: str) -> int:
        return _field(row, name, source, int)

    index, videos = number("episode_index"), {}
    try:
        if info.version == "v3.0":
            data = info.data_path.format(chunk_index=number("data/chunk_index"), file_index=number("data/file_index"))
            for camera in on_video:
                chunk, file = (number(f"videos/{camera}/{name}") for name in ("chunk_index", "file_index"))
                path = info.video_path.format(video_key=camera, chunk_index=chunk, file_index=file)
                videos[camera] = Video(path, _field(row, f"videos/{camera}/from_timestamp", source, float))
        else:
            place = {"episode_chunk": index // info.chunks_size, "episode_index": index}
            data = info.data_path.format(**place)
            for camera in on_video:
                videos[camera] = Video(info.video_path.format(video_key=camera, **place), None)
    except (KeyError, IndexError, ValueError, AttributeError) as error:
        raise DataError(f"{info.root}/meta/info.json: a path template cannot be filled in ({error!r}).") from error
    tasks = row.get("tasks") or []
    return Entry(index, number("length"), tuple(str(task) for task in tasks if task is not None), data, videos)


def _json_lines(path: Path) -> list[dict[str, Any]]:
    try:
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except FileNotFoundError:
        raise DataError(f"The file {path} is missing. Download the dataset again.") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read: {error}. Download the dataset again.") from error
    if not all(isinstance(row, dict) for row in rows):
        raise DataError(f"{path} must hold one JSON object a line. Download the dataset again.")
    return rows


def _field(row: dict[str, Any], name: str, path: Path, kind: type) -> Any:
    try:
        return kind(row[name])
    except (KeyError, TypeError, ValueError):
        raise DataError(f"{path}: an episode has no usable {name!r}. Download the dataset again.") from None
