"""Writers of LeRobotDatasets, v2.1 and v3.0, with all the metadata that LeRobot itself reads."""

from __future__ import annotations

import json
import logging
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from gymnast_core.errors import DataError
from gymnast_core.types import Episode
from gymnast_episodes.encode import encode_video, join_videos
from gymnast_episodes.labels import columns as label_columns
from gymnast_episodes.labels import labels_of
from gymnast_episodes.lerobot_features import (
    STATE,
    Form,
    column_of_pictures,
    features_of,
    number,
    table_of_rows,
    table_of_tasks,
)
from gymnast_episodes.statistics import column_stats, image_stats, merge_stats
from gymnast_episodes.writers import STAGING, EpisodeWriter, Record, WriterOptions

log = logging.getLogger(__name__)

_FILES_A_CHUNK = 1000
_DATA_MB, _VIDEO_MB = 100, 200


class _LeRobotWriter(EpisodeWriter):
    """What both versions share: rows, videos and statistics of single episodes.

    Actions and readings are stored as they are. LeRobot has a row for every frame; the last one, whose action leads to
    no frame, repeats the action before.
    """

    keeps = frozenset({"cameras", "readings", "names", "robot", "success", "outcomes", "start"})
    holds = ("video", "png")

    def __init__(self, root: Path, options: WriterOptions, written: Sequence[Record]) -> None:
        super().__init__(root, options, written)
        self._frames = sum(record["length"] for record in written)
        self._tasks = {record["task"]: record["task_index"] for record in written}
        self._form = Form(**written[0]["form"]) if written else None

    @abstractmethod
    def _data_file(self, index: int) -> Path:
        """Parquet file of an episode."""

    @abstractmethod
    def _video_file(self, index: int, camera: str) -> Path:
        """Video of an episode."""

    def write(self, index: int, episode: Episode) -> Record:
        length, form = len(episode.frames_TVHWC), Form.of(episode)
        if self._form not in (None, form):
            raise DataError(
                f"Episode {episode.id!r} has {form}; the first one {self._form}. A LeRobot dataset holds one form. Set "
                "the source's image_size or cameras, or --fps."
            )
        if self._form is None and form.cameras != sorted(form.cameras):
            log.warning("Read it with cameras=[%s]: the main one is not first by name.", ",".join(episode.cameras))
        task_index = self._tasks.get(episode.instruction, len(self._tasks))
        columns = self._columns(index, episode, task_index)
        table, stats = table_of_rows(columns), {}
        for name, camera in zip(episode.cameras, form.cameras, strict=True):
            stats[camera] = image_stats(episode.view(name).cpu())
            if self.options.frames == "png":
                table = table.append_column(camera, column_of_pictures(episode.view(name)))
                continue
            path = self._video_file(index, camera)
            path.parent.mkdir(parents=True, exist_ok=True)
            encode_video(path, episode.view(name), form.fps, self.options.pixel_format)
        _write_table(table, self._data_file(index))
        stats |= {name: column_stats(values.reshape(length, -1)) for name, values in columns.items()}
        record = {
            "id": episode.id,
            "length": length,
            "from": self._frames,
            "task": episode.instruction,
            "task_index": task_index,
            "form": asdict(form),
            "labels": labels_of(episode),
            "stats": stats,
        }
        self._tasks[episode.instruction], self._form = task_index, form
        self._frames += length
        return record

    def _columns(self, index: int, episode: Episode, task_index: int) -> dict[str, np.ndarray]:
        """Name -> (T,) or (T, D)."""
        length, actions_TA = len(episode.frames_TVHWC), episode.actions_TA.float().cpu()
        frame_T = np.arange(length, dtype=np.int64)
        columns: dict[str, np.ndarray] = {"action": torch.cat([actions_TA, actions_TA[-1:]]).numpy()}
        if episode.proprio_TP is not None:
            columns[STATE] = episode.proprio_TP.float().cpu().numpy()
        return columns | {
            "timestamp": (frame_T / Form.of(episode).fps).astype(np.float32),
            "frame_index": frame_T,
            "episode_index": np.full(length, index, np.int64),
            "index": frame_T + self._frames,
            "task_index": np.full(length, task_index, np.int64),
        }

    def _info(self, version: str, form: Form, **paths: Any) -> dict[str, Any]:
        return {
            "codebase_version": version,
            "robot_type": self.options.robot or self.recording.robot,
            "total_frames": self._frames,
            "total_tasks": len(self._tasks),
            "chunks_size": _FILES_A_CHUNK,
            "fps": number(form.fps),
            **paths,
            "features": features_of(form, self.recording, self.options),
        }


class LeRobotV21Writer(_LeRobotWriter):
    """One parquet file and one video a camera for each episode."""

    _data = "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet"
    _video = "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4"

    def _data_file(self, index: int) -> Path:
        return self.root / self._data.format(episode_chunk=index // _FILES_A_CHUNK, episode_index=index)

    def _video_file(self, index: int, camera: str) -> Path:
        place = {"episode_chunk": index // _FILES_A_CHUNK, "episode_index": index, "video_key": camera}
        return self.root / self._video.format(**place)

    def finish(self, written: Sequence[Record]) -> None:
        total, meta, form = len(written), self.root / "meta", Form(**written[0]["form"])
        meta.mkdir(exist_ok=True)
        info = self._info(
            "v2.1",
            form,
            total_episodes=total,
            total_videos=0 if self.options.frames == "png" else total * len(form.cameras),
            total_chunks=-(-total // _FILES_A_CHUNK),
            splits={"train": f"0:{total}"},
            data_path=self._data,
            video_path=None if self.options.frames == "png" else self._video,
        )
        _write_json(meta / "info.json", info)
        labels = label_columns([record["labels"] for record in written])
        episodes = (
            {"episode_index": i, "tasks": [record["task"]], "length": record["length"], **known}
            for i, (record, known) in enumerate(zip(written, labels, strict=True))
        )
        _write_lines(meta / "episodes.jsonl", episodes)
        stats = ({"episode_index": i, "stats": record["stats"]} for i, record in enumerate(written))
        _write_lines(meta / "episodes_stats.jsonl", stats)
        _write_lines(meta / "tasks.jsonl", ({"task_index": i, "task": task} for task, i in self._tasks.items()))


class LeRobotV3Writer(_LeRobotWriter):
    """Many episodes a file: single episodes are kept aside and put together at the end, without encoding anew."""

    _data = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
    _video = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"

    def _data_file(self, index: int) -> Path:
        return self._staged(index) / f"{index:06d}.parquet"

    def _video_file(self, index: int, camera: str) -> Path:
        return self._staged(index) / f"{index:06d}.{camera}.mp4"

    def _staged(self, index: int) -> Path:
        return self.root / STAGING / f"{index // _FILES_A_CHUNK:03d}"

    def finish(self, written: Sequence[Record]) -> None:
        total, form = len(written), Form(**written[0]["form"])
        rows: list[dict[str, Any]] = [{} for _ in written]
        tables = [self._data_file(i) for i in range(total)]
        for group, place in _groups(tables, _DATA_MB):
            _join_tables([tables[i] for i in group], self.root / self._data.format(**place))
            for i in group:
                rows[i] |= {f"data/{name}": value for name, value in place.items()}
        for camera in form.cameras if self.options.frames == "video" else ():
            videos = [self._video_file(i, camera) for i in range(total)]
            for group, place in _groups(videos, _VIDEO_MB):
                target = self.root / self._video.format(video_key=camera, **place)
                join_videos([videos[i] for i in group], target, form.fps)
                frames = 0
                for i in group:
                    end = frames + written[i]["length"]
                    span = {"from_timestamp": frames / form.fps, "to_timestamp": end / form.fps}
                    rows[i] |= {f"videos/{camera}/{name}": value for name, value in {**place, **span}.items()}
                    frames = end
        self._write_meta(form, written, rows)

    def _write_meta(self, form: Form, written: Sequence[Record], rows: list[dict[str, Any]]) -> None:
        total, meta = len(written), self.root / "meta"
        labels = label_columns([record["labels"] for record in written])
        for i, (row, record) in enumerate(zip(rows, written, strict=True)):
            row |= {"episode_index": i, "tasks": [record["task"]], "length": record["length"]}
            row |= {"dataset_from_index": record["from"], "dataset_to_index": record["from"] + record["length"]}
            row |= {"meta/episodes/chunk_index": 0, "meta/episodes/file_index": 0}
            row |= labels[i]
            for feature, stats in record["stats"].items():
                row |= {f"stats/{feature}/{name}": value for name, value in stats.items()}
        _write_table(pa.Table.from_pylist(rows), meta / "episodes" / "chunk-000" / "file-000.parquet")
        _write_table(table_of_tasks(self._tasks), meta / "tasks.parquet")
        _write_json(meta / "stats.json", merge_stats([record["stats"] for record in written]))
        info = self._info(
            "v3.0",
            form,
            total_episodes=total,
            data_files_size_in_mb=_DATA_MB,
            video_files_size_in_mb=_VIDEO_MB,
            splits={"train": f"0:{total}"},
            data_path=self._data,
            video_path=None if self.options.frames == "png" else self._video,
        )
        for about in info["features"].values():
            if about["dtype"] != "video":
                about["fps"] = number(form.fps)
        _write_json(meta / "info.json", info)


def _groups(files: Sequence[Path], megabytes: int) -> Iterator[tuple[list[int], dict[str, int]]]:
    """Runs of staged files that fit one file, and which file that is."""
    group: list[int] = []
    size = number = 0
    for i, file in enumerate(files):
        bytes_ = file.stat().st_size
        if group and size + bytes_ > megabytes * 2**20:
            yield group, _place(number)
            group, size, number = [], 0, number + 1
        group.append(i)
        size += bytes_
    if group:
        yield group, _place(number)


def _place(number: int) -> dict[str, int]:
    return {"chunk_index": number // _FILES_A_CHUNK, "file_index": number % _FILES_A_CHUNK}


def _join_tables(parts: Sequence[Path], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # One row group an episode: a reader of one episode reads no other.
    with pq.ParquetWriter(path, pq.read_schema(parts[0])) as target:
        for part in parts:
            target.write_table(pq.ParquetFile(part).read())


def _write_table(table: pa.Table, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path)


def _write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=4, ensure_ascii=False), encoding="utf-8")


def _write_lines(path: Path, rows: Iterator[dict[str, Any]]) -> None:
    with path.open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
