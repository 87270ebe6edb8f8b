"""Where a LeRobotDataset keeps its episodes: the metadata of the formats v2.0, v2.1 and v3.0.

Formats: https://huggingface.co/docs/lerobot/lerobot-dataset-v3 and, for v2, the `meta/*.jsonl` files beside it.
"""

from __future__ import annotations

import itertools
import logging
import string
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from gymnast_core.config.ranges import Range
from gymnast_core.errors import DataError, unknown_name
from gymnast_core.reading import JsonObject, as_object, read_json_lines, read_object
from gymnast_episodes.foreign import data_files, reading, writable
from gymnast_episodes.labels import COLUMNS, Labels, read_labels
from gymnast_episodes.tables import open_table, read_table

log = logging.getLogger(__name__)

VERSIONS = ("v2.0", "v2.1", "v3.0")
CAMERA_PREFIX = "observation.images."
"""How LeRobot names the features of cameras."""
AGAIN = "Download the dataset again."
_DEPTH = ("video.is_depth_map", "is_depth_map")
_INDEX = Range(least=0, most=2**40)


@dataclass(frozen=True)
class Feature:
    """A column or camera, as `meta/info.json` describes it."""

    dtype: str
    shape: tuple[int, ...] | None
    """None where the file does not say."""
    names: Any
    """What its numbers are called: JSON as the dataset has it (a list, or lists by group); None: unknown."""
    depth: bool = False
    """Whether its pictures are of distances, not of colours."""


@dataclass(frozen=True)
class Info:
    """The parts of `meta/info.json` that reading needs."""

    root: Path
    version: str
    fps: float
    """Frames a second."""
    features: Mapping[str, Feature]
    data_path: str
    """Template of the parquet files' paths."""
    video_path: str
    """Template of the videos' paths; empty where there are none."""
    chunks_size: int
    """Episodes (v2) or files (v3) a folder."""
    episodes: int | None
    """Episodes in all; None where the file does not say."""
    robot: str | None
    """The kind of robot, as the dataset names it."""

    def cameras(self) -> list[str]:
        return sorted(key for key, about in self.features.items() if about.dtype in ("video", "image"))


@dataclass(frozen=True)
class Video:
    """Where one camera's frames of one episode are."""

    path: str
    """Relative to the root."""
    start: float | None
    """Seconds at which the episode starts in it; None where the video is the episode's own."""
    stop: float | None = None
    """Seconds at which it ends; None where that is not said."""
    span: tuple[float, float] | None = None
    """Seconds from which and to which all the episodes of this video reach."""


@dataclass(frozen=True)
class Entry:
    """Where one episode is."""

    index: int
    length: int
    """Frames."""
    tasks: tuple[str | int, ...]
    """Instructions that the metadata names, or their numbers in the table of tasks."""
    data: str
    """Parquet file, relative to the root."""
    videos: Mapping[str, Video]
    """By camera; those whose frames are stored in the parquet file have none."""
    labels: Labels
    """What is known of the whole episode."""


def read_info(root: Path) -> Info:
    """`meta/info.json`. Raises `DataError` if it is missing, incomplete or of an unknown version."""
    path = root / "meta" / "info.json"
    if not path.exists():
        raise DataError(f"{root} is no LeRobot dataset: it has no meta/info.json. Give its folder: path=DIR.")
    about = read_object(path, allow_nan=True)
    version = about.text("codebase_version")
    if version not in VERSIONS:
        raise DataError(
            f"{path}: codebase_version {version!r} cannot be read; known: {', '.join(VERSIONS)}. "
            "Convert the dataset with LeRobot's own scripts."
        )
    features = about.object("features")
    return Info(
        root=root,
        version=version,
        fps=about.number("fps", Range(above=0, most=1e6)),
        features={name: _feature(features.object(name)) for name in features.values},
        data_path=about.text("data_path"),
        video_path=about.text("video_path", default=None) or "",
        chunks_size=about.integer("chunks_size", Range(least=1), default=1000),
        episodes=about.integer("total_episodes", _INDEX, default=None),
        robot=robot if isinstance(robot := about.values.get("robot_type"), str) else None,
    )


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
    colour = [camera for camera in cameras if not info.features[camera].depth]
    if depth := [camera for camera in chosen if camera not in colour] or (cameras if not colour else []):
        raise DataError(
            f"{info.root}: {depth[0]} shows depth, which is no picture for a model. Cameras in colour: "
            f"{', '.join(colour) or 'none'}."
        )
    return tuple(chosen or colour)


def camera_name(feature: str) -> str:
    """What episodes call a camera: "front" for observation.images.front."""
    return feature.removeprefix(CAMERA_PREFIX)


def read_entries(info: Info, cameras: Sequence[str], skip_bad: bool = False) -> list[Entry]:
    """All episodes in order.

    Raises `DataError` for metadata that is missing, incomplete or contradicts itself; with `skip_bad`, fewer or more
    episodes than `meta/info.json` counts are a warning.
    """
    on_video = [camera for camera in cameras if info.features[camera].dtype == "video"]
    rows = _rows_v3(info, on_video) if info.version == "v3.0" else _rows_v2(info)
    entries = sorted((_entry(info, on_video, row) for row in rows), key=lambda entry: entry.index)
    if not entries:
        raise DataError(f"{info.root} has no episodes in its metadata.")
    for one, other in itertools.pairwise(entries):
        if one.index == other.index:
            raise DataError(f"{info.root}/meta lists episode {one.index} twice. {AGAIN}")
    if info.episodes not in (None, len(entries)):
        message = f"{info.root}/meta/info.json counts {info.episodes} episodes, but meta lists {len(entries)}."
        if not skip_bad:
            raise DataError(f"{message} {AGAIN} skip_bad=true reads those that are listed.")
        log.warning("%s", message)
    return _with_spans(info, entries)


def _feature(about: JsonObject) -> Feature:
    shape = about.integers("shape", Range(least=0), default=None)
    video = about.values.get("info") or about.values.get("video_info")
    depth = isinstance(video, dict) and any(video.get(key) is True for key in _DEPTH)
    return Feature(about.text("dtype"), None if shape is None else tuple(shape), about.values.get("names"), depth)


def _rows_v2(info: Info) -> Iterator[JsonObject]:
    path = info.root / "meta" / "episodes.jsonl"
    for number, row in enumerate(read_json_lines(path, allow_nan=True), start=1):
        yield as_object(row, f"{path}, episode {number} of the file", DataError)


def _rows_v3(info: Info, on_video: Sequence[str]) -> Iterator[JsonObject]:
    folder = info.root / "meta" / "episodes"
    paths = data_files(folder.glob("*/*.parquet"))
    if not paths:
        raise DataError(f"{folder} has no parquet files: the episodes are missing. {AGAIN}")
    columns, optional = ["episode_index", "length", "data/chunk_index", "data/file_index"], ["tasks", *COLUMNS]
    for camera in on_video:
        columns += [f"videos/{camera}/{name}" for name in ("chunk_index", "file_index", "from_timestamp")]
        optional.append(f"videos/{camera}/to_timestamp")
    for path in paths:
        known = open_table(path, columns).schema_arrow.names
        table = read_table(path, [*columns, *(name for name in optional if name in known)])
        with reading(f"the file {path}", AGAIN):
            rows = table.to_pylist()
        for number, row in enumerate(rows):
            yield as_object(row, f"{path}, row {number}", DataError)


def _entry(info: Info, on_video: Sequence[str], row: JsonObject) -> Entry:
    index, videos = _whole(row, "episode_index"), {}
    if info.version == "v3.0":
        place = {name: _whole(row, f"data/{name}") for name in ("chunk_index", "file_index")}
        data = _filled_in(info, "data_path", **place)
        for camera in on_video:
            place = {name: _whole(row, f"videos/{camera}/{name}") for name in ("chunk_index", "file_index")}
            start = row.number(f"videos/{camera}/from_timestamp", Range(least=0))
            stop = row.number(f"videos/{camera}/to_timestamp", Range(least=0), default=None)
            videos[camera] = Video(_filled_in(info, "video_path", video_key=camera, **place), start, stop)
    else:
        place = {"episode_chunk": index // info.chunks_size, "episode_index": index}
        data = _filled_in(info, "data_path", **place)
        for camera in on_video:
            videos[camera] = Video(_filled_in(info, "video_path", video_key=camera, **place), None)
    return Entry(index, _whole(row, "length"), _tasks(row), data, videos, read_labels(row))


def _tasks(row: JsonObject) -> tuple[str | int, ...]:
    """One text, or a list of texts or of numbers."""
    named = row.values.get("tasks")
    listed = named if isinstance(named, list) else [] if named is None else [named]
    for task in listed:
        if isinstance(task, bool) or not isinstance(task, str | int | None) or not writable(str(task)):
            row.refuse("tasks", f"is {named!r}; it must be a text, or a list of texts")
    return tuple(task for task in listed if task is not None)


def _whole(row: JsonObject, name: str) -> int:
    """A whole number; pandas makes 3.0 of it where other rows have none."""
    value = row[name]
    if isinstance(value, float) and value.is_integer():
        row = JsonObject(row.values | {name: int(value)}, row.place, row.error)
    return row.integer(name, _INDEX)


def _filled_in(info: Info, key: str, **values: str | int) -> str:
    """A path template of `meta/info.json`, filled in: relative to the root, and inside it."""
    template, filled = getattr(info, key), ""
    try:
        for text, name, form, conversion in string.Formatter().parse(template):
            filled += text
            if name is not None:
                # A width of more digits would be a name that no file system takes.
                if conversion or len(form or "") > 3:
                    raise ValueError(f"the form {form or conversion!r}")
                filled += format(values[name], form or "")
    except (KeyError, ValueError, TypeError) as error:
        raise DataError(
            f"{info.root}/meta/info.json: the path template {key} {template!r} cannot be filled in ({error!r}). {AGAIN}"
        ) from error
    path = PurePosixPath(filled)
    if not filled or "\0" in filled or not writable(filled) or path.is_absolute() or ".." in path.parts:
        raise DataError(f"{info.root}/meta/info.json: {key} {template!r} leads to no file of the dataset. {AGAIN}")
    return filled


def _with_spans(info: Info, entries: list[Entry]) -> list[Entry]:
    """What the episodes of one video know of each other: from where to where they reach in it together."""
    spans: dict[str, tuple[float, float]] = {}
    for entry in entries:
        for video in entry.videos.values():
            if video.start is not None:
                low, high = spans.get(video.path, (video.start, video.start))
                spans[video.path] = min(low, video.start), max(high, video.start + entry.length / info.fps)
    return [
        replace(
            entry,
            videos={camera: replace(video, span=spans.get(video.path)) for camera, video in entry.videos.items()},
        )
        for entry in entries
    ]
