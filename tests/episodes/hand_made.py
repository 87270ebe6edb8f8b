"""LeRobotDatasets laid out by hand from the formats' documentation, not by the project's writers."""

from __future__ import annotations

import json
from io import BytesIO
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from clips import encode, pictures
from PIL import Image

FPS = 10
LENGTHS = (7, 12, 5)
TASKS = ("open the drawer", "close the drawer")
CAMERA_FEATURE = {"dtype": "video", "shape": [32, 48, 3], "names": ["height", "width", "channels"]}
TOP, WRIST = "observation.images.top", "observation.images.wrist"


def actions(episode: int) -> np.ndarray:
    return np.random.default_rng(episode).normal(size=(LENGTHS[episode], 3)).astype(np.float32)


def frames(episode: int, camera: str = TOP) -> np.ndarray:
    return pictures(LENGTHS[episode], first=40 * episode + (200 if camera == WRIST else 0))


def readings(episode: int) -> np.ndarray:
    return np.random.default_rng(100 + episode).normal(size=(LENGTHS[episode], 2)).astype(np.float32)


def rows(episode: int) -> dict[str, object]:
    """The columns of one episode; the second one changes its task on the way."""
    length, before = LENGTHS[episode], sum(LENGTHS[:episode])
    task = [episode % 2] * length if episode != 1 else [1] * 6 + [0] * 6
    return {
        "action": pa.array(list(actions(episode)), pa.list_(pa.float32(), 3)),
        "observation.state": pa.array(list(readings(episode)), pa.list_(pa.float32(), 2)),
        "timestamp": pa.array([i / FPS for i in range(length)], pa.float32()),
        "frame_index": pa.array(range(length), pa.int64()),
        "episode_index": pa.array([episode] * length, pa.int64()),
        "index": pa.array(range(before, before + length), pa.int64()),
        "task_index": pa.array(task, pa.int64()),
    }


def info(version: str, cameras: tuple[str, ...], **more: object) -> dict[str, object]:
    number = {"dtype": "int64", "shape": [1], "names": None}
    return {
        "codebase_version": version,
        "robot_type": "so101",
        "total_episodes": len(LENGTHS),
        "total_frames": sum(LENGTHS),
        "total_tasks": 2,
        "chunks_size": 1000,
        "fps": FPS,
        "splits": {"train": f"0:{len(LENGTHS)}"},
        "features": {
            **dict.fromkeys(cameras, CAMERA_FEATURE),
            "action": {"dtype": "float32", "shape": [3], "names": ["x", "y", "z"]},
            "observation.state": {"dtype": "float32", "shape": [2], "names": None},
            "timestamp": {"dtype": "float32", "shape": [1], "names": None},
            **dict.fromkeys(("frame_index", "episode_index", "index", "task_index"), number),
        },
        **more,
    }


def write_json(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=4))


def v21(root: Path, cameras: tuple[str, ...] = (TOP,)) -> Path:
    write_json(
        root / "meta/info.json",
        info(
            "v2.1",
            cameras,
            total_videos=len(cameras) * len(LENGTHS),
            total_chunks=1,
            data_path="data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
            video_path="videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4",
        ),
    )
    lines = {
        "tasks": [{"task_index": i, "task": task} for i, task in enumerate(TASKS)],
        "episodes": [
            {"episode_index": i, "tasks": [TASKS[0]] if i != 1 else list(TASKS[::-1]), "length": n}
            for i, n in enumerate(LENGTHS)
        ],
    }
    for name, content in lines.items():
        (root / f"meta/{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in content))
    for i in range(len(LENGTHS)):
        path = root / f"data/chunk-000/episode_{i:06d}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table(rows(i)), path)
        for key in cameras:
            encode(root / f"videos/chunk-000/{key}/episode_{i:06d}.mp4", frames(i, key), fps=FPS, g="4", bf="2")
    return root


def v3(root: Path, cameras: tuple[str, ...] = (TOP,)) -> Path:
    """Episodes 0 and 1 share a video and all share one parquet file of a single row group."""
    write_json(
        root / "meta/info.json",
        info(
            "v3.0",
            cameras,
            data_files_size_in_mb=100,
            video_files_size_in_mb=200,
            data_path="data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
            video_path="videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4",
        ),
    )
    for folder in ("meta/episodes/chunk-000", "data/chunk-000"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    # As pandas writes a table whose row labels have no name.
    tasks = {"task_index": pa.array([0, 1], pa.int64()), "__index_level_0__": pa.array(TASKS)}
    pq.write_table(pa.table(tasks), root / "meta/tasks.parquet")
    pq.write_table(
        pa.concat_tables([pa.table(rows(i)) for i in range(len(LENGTHS))]).combine_chunks(),
        root / "data/chunk-000/file-000.parquet",
    )
    groups, entries = ((0, 1), (2,)), []
    for file, group in enumerate(groups):
        seconds = 0.0
        for i in group:
            entry = {
                "episode_index": i,
                "tasks": [TASKS[0]] if i != 1 else list(TASKS[::-1]),
                "length": LENGTHS[i],
                "data/chunk_index": 0,
                "data/file_index": 0,
                "dataset_from_index": sum(LENGTHS[:i]),
                "dataset_to_index": sum(LENGTHS[: i + 1]),
                "stats/action/min": [0.0, 0.0, 0.0],
            }
            for key in cameras:
                span = {"from_timestamp": seconds, "to_timestamp": seconds + LENGTHS[i] / FPS}
                place = {"chunk_index": 0, "file_index": file}
                entry |= {f"videos/{key}/{name}": value for name, value in {**place, **span}.items()}
            entries.append(entry)
            seconds += LENGTHS[i] / FPS
        for key in cameras:
            joined = np.concatenate([frames(i, key) for i in group])
            encode(root / f"videos/{key}/chunk-000/file-{file:03d}.mp4", joined, fps=FPS, g="5", bf="2")
    pq.write_table(pa.Table.from_pylist(entries), root / "meta/episodes/chunk-000/file-000.parquet")
    return root


def v3_images(root: Path) -> Path:
    """Frames as PNG inside the parquet file, as LeRobot stores cameras of dtype image."""
    v3(root, ())
    write = json.loads((root / "meta/info.json").read_text())
    write["features"][TOP] = CAMERA_FEATURE | {"dtype": "image"}
    write_json(root / "meta/info.json", write)
    with pq.ParquetWriter(root / "data/chunk-000/file-000.parquet", _with_images(0).schema) as file:
        for i in range(len(LENGTHS)):
            file.write_table(_with_images(i))
    return root


def _with_images(episode: int) -> pa.Table:
    stored = []
    for image in frames(episode):
        buffer = BytesIO()
        Image.fromarray(image).save(buffer, "PNG")
        stored.append({"bytes": buffer.getvalue(), "path": None})
    kind = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    return pa.table({**rows(episode), TOP: pa.array(stored, kind)})
