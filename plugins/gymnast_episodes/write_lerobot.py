"""Writers of LeRobotDatasets, v2.1 and v3.0, with all the metadata that LeRobot itself reads."""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from gymnast_core.errors import DataError
from gymnast_core.types import Episode
from gymnast_episodes.encode import encode_video, join_videos
from gymnast_episodes.statistics import column_stats, image_stats, merge_stats
from gymnast_episodes.writers import STAGING, EpisodeWriter, Record, WriterOptions

CAMERA = "observation.images.main"
_SCALARS = ("timestamp", "frame_index", "episode_index", "index", "task_index")
_FILES_A_CHUNK = 1000
_DATA_MB, _VIDEO_MB = 100, 200


class _LeRobotWriter(EpisodeWriter):
    """What both versions share: rows, videos and statistics of single episodes.

    Actions are stored as they are. LeRobot has a row for every frame; the last one, whose action leads to no frame,
    repeats the action before.
    """

    def __init__(self, root: Path, options: WriterOptions, written: Sequence[Record]) -> None:
        super().__init__(root, options, written)
        self._frames = sum(record["length"] for record in written)
        self._tasks = {record["task"]: record["task_index"] for record in written}
        self._shape = written[0]["shape"] if written else None

    @abstractmethod
    def _files(self, index: int) -> tuple[Path, Path]:
        """Parquet file and video of an episode."""

    def write(self, index: int, episode: Episode) -> Record:
        length, height, width, _ = episode.view().shape
        shape = [height, width, episode.actions_TA.shape[1]]
        if self._shape not in (None, shape):
            raise DataError(
                f"Episode {episode.id!r} has height, width and action width {shape}, the first one {self._shape}; a "
                "LeRobot dataset holds one size. Set the source's image_size."
            )
        data, video = self._files(index)
        for path in (data, video):
            path.parent.mkdir(parents=True, exist_ok=True)
        task_index = self._tasks.get(episode.instruction, len(self._tasks))
        actions_TA = episode.actions_TA.float().cpu()
        frame_T = np.arange(length, dtype=np.int64)
        columns: dict[str, np.ndarray] = {
            "action": torch.cat([actions_TA, actions_TA[-1:]]).numpy(),
            "timestamp": (frame_T / self.options.fps).astype(np.float32),
            "frame_index": frame_T,
            "episode_index": np.full(length, index, np.int64),
            "index": frame_T + self._frames,
            "task_index": np.full(length, task_index, np.int64),
        }
        _write_table(_rows(columns), data)
        encode_video(video, episode.view(), self.options.fps, self.options.pixel_format)
        stats = {name: column_stats(values.reshape(length, -1)) for name, values in columns.items()}
        record = {
            "id": episode.id,
            "length": length,
            "from": self._frames,
            "task": episode.instruction,
            "task_index": task_index,
            "shape": shape,
            "stats": {CAMERA: image_stats(episode.view().cpu()), **stats},
        }
        self._tasks[episode.instruction], self._shape = task_index, shape
        self._frames += length
        return record

    def _info(self, version: str, **paths: Any) -> dict[str, Any]:
        height, width, action_dim = self._shape or (0, 0, 0)
        video = {
            "video.fps": self.options.fps,
            "video.height": height,
            "video.width": width,
            "video.channels": 3,
            "video.codec": "h264",
            "video.pix_fmt": self.options.pixel_format,
            "video.is_depth_map": False,
            "has_audio": False,
        }
        frames = {"dtype": "video", "shape": [height, width, 3], "names": ["height", "width", "channels"]}
        features: dict[str, Any] = {
            CAMERA: {**frames, "info": video},
            "action": {"dtype": "float32", "shape": [action_dim], "names": [f"action_{i}" for i in range(action_dim)]},
        }
        for name in _SCALARS:
            features[name] = {"dtype": "float32" if name == "timestamp" else "int64", "shape": [1], "names": None}
        return {
            "codebase_version": version,
            "robot_type": self.options.robot,
            "total_frames": self._frames,
            "total_tasks": len(self._tasks),
            "chunks_size": _FILES_A_CHUNK,
            "fps": self.options.fps,
            **paths,
            "features": features,
        }


class LeRobotV21Writer(_LeRobotWriter):
    """One parquet file and one video an episode."""

    _data = "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet"
    _video = "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4"

    def _files(self, index: int) -> tuple[Path, Path]:
        place = {"episode_chunk": index // _FILES_A_CHUNK, "episode_index": index, "video_key": CAMERA}
        return self.root / self._data.format(**place), self.root / self._video.format(**place)

    def finish(self, written: Sequence[Record]) -> None:
        total, meta = len(written), self.root / "meta"
        meta.mkdir(exist_ok=True)
        info = self._info(
            "v2.1",
            total_episodes=total,
            total_videos=total,
            total_chunks=-(-total // _FILES_A_CHUNK),
            splits={"train": f"0:{total}"},
            data_path=self._data,
            video_path=self._video,
        )
        _write_json(meta / "info.json", info)
        episodes = ({"episode_index": i, "tasks": [r["task"]], "length": r["length"]} for i, r in enumerate(written))
        _write_lines(meta / "episodes.jsonl", episodes)
        stats = ({"episode_index": i, "stats": record["stats"]} for i, record in enumerate(written))
        _write_lines(meta / "episodes_stats.jsonl", stats)
        _write_lines(meta / "tasks.jsonl", ({"task_index": i, "task": task} for task, i in self._tasks.items()))


class LeRobotV3Writer(_LeRobotWriter):
    """Many episodes a file: single episodes are kept aside and put together at the end, without encoding anew."""

    _data = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
    _video = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"

    def _files(self, index: int) -> tuple[Path, Path]:
        staged = self.root / STAGING / f"{index // _FILES_A_CHUNK:03d}"
        return staged / f"{index:06d}.parquet", staged / f"{index:06d}.mp4"

    def finish(self, written: Sequence[Record]) -> None:
        total, fps = len(written), self.options.fps
        rows: list[dict[str, Any]] = [{} for _ in written]
        for number, group in enumerate(self._groups(total, 0, _DATA_MB)):
            place = {"chunk_index": number // _FILES_A_CHUNK, "file_index": number % _FILES_A_CHUNK}
            self._join_tables(group, self.root / self._data.format(**place))
            for i in group:
                rows[i] |= {f"data/{name}": value for name, value in place.items()}
        for number, group in enumerate(self._groups(total, 1, _VIDEO_MB)):
            place = {"chunk_index": number // _FILES_A_CHUNK, "file_index": number % _FILES_A_CHUNK}
            target = self.root / self._video.format(video_key=CAMERA, **place)
            join_videos([self._files(i)[1] for i in group], target, fps)
            frames = 0
            for i in group:
                end = frames + written[i]["length"]
                span = {"from_timestamp": frames / fps, "to_timestamp": end / fps}
                rows[i] |= {f"videos/{CAMERA}/{name}": value for name, value in {**place, **span}.items()}
                frames = end
        self._write_meta(written, rows)

    def _groups(self, total: int, kind: int, megabytes: int) -> Iterator[list[int]]:
        """Runs of episodes whose staged files (0: parquet, 1: video) fit one file."""
        group: list[int] = []
        size = 0
        for i in range(total):
            bytes_ = self._files(i)[kind].stat().st_size
            if group and size + bytes_ > megabytes * 2**20:
                yield group
                group, size = [], 0
            group.append(i)
            size += bytes_
        if group:
            yield group

    def _join_tables(self, group: Sequence[int], path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        first = pq.read_schema(self._files(group[0])[0])
        # One row group an episode: a reader of one episode reads no other.
        with pq.ParquetWriter(path, first) as target:
            for i in group:
                target.write_table(pq.ParquetFile(self._files(i)[0]).read())

    def _write_meta(self, written: Sequence[Record], rows: list[dict[str, Any]]) -> None:
        total, meta = len(written), self.root / "meta"
        for i, (row, record) in enumerate(zip(rows, written, strict=True)):
            row |= {"episode_index": i, "tasks": [record["task"]], "length": record["length"]}
            row |= {"dataset_from_index": record["from"], "dataset_to_index": record["from"] + record["length"]}
            row |= {"meta/episodes/chunk_index": 0, "meta/episodes/file_index": 0}
            for feature, stats in record["stats"].items():
                row |= {f"stats/{feature}/{name}": value for name, value in stats.items()}
        _write_table(pa.Table.from_pylist(rows), meta / "episodes" / "chunk-000" / "file-000.parquet")
        _write_table(_task_table(self._tasks), meta / "tasks.parquet")
        _write_json(meta / "stats.json", merge_stats([record["stats"] for record in written]))
        info = self._info(
            "v3.0",
            total_episodes=total,
            data_files_size_in_mb=_DATA_MB,
            video_files_size_in_mb=_VIDEO_MB,
            splits={"train": f"0:{total}"},
            data_path=self._data,
            video_path=self._video,
        )
        for about in info["features"].values():
            if about["dtype"] != "video":
                about["fps"] = self.options.fps
        _write_json(meta / "info.json", info)


def _rows(columns: dict[str, np.ndarray]) -> pa.Table:
    action_TA = columns["action"]
    action = pa.FixedSizeListArray.from_arrays(pa.array(action_TA.reshape(-1)), action_TA.shape[1])
    return pa.table({"action": action, **{name: pa.array(columns[name]) for name in _SCALARS}})


def _task_table(tasks: dict[str, int]) -> pa.Table:
    """LeRobot looks tasks up as the row labels of a pandas table."""
    table = pa.table({"task_index": pa.array(tasks.values(), pa.int64()), "task": pa.array(tasks.keys(), pa.string())})
    column = {"field_name": "task_index", "name": "task_index", "metadata": None}
    label = {"field_name": "task", "name": "task", "metadata": None}
    pandas = {
        "index_columns": ["task"],
        "column_indexes": [],
        "columns": [
            {**column, "pandas_type": "int64", "numpy_type": "int64"},
            {**label, "pandas_type": "unicode", "numpy_type": "object"},
        ],
        "pandas_version": "2.0.0",
    }
    return table.replace_schema_metadata({"pandas": json.dumps(pandas)})


def _write_table(table: pa.Table, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path)


def _write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=4, ensure_ascii=False), encoding="utf-8")


def _write_lines(path: Path, rows: Iterator[dict[str, Any]]) -> None:
    with path.open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
