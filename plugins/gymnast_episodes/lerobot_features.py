"""What a written LeRobotDataset says of itself in `meta/info.json`, and its table of tasks."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image
from torch import Tensor

from gymnast_core.errors import DataError
from gymnast_core.types import Episode
from gymnast_episodes.lerobot_layout import CAMERA_PREFIX
from gymnast_episodes.recording import Recording
from gymnast_episodes.writers import WriterOptions, rate_of

STATE = "observation.state"
SCALARS = ("timestamp", "frame_index", "episode_index", "index", "task_index")


@dataclass(frozen=True)
class Form:
    """What all episodes of a LeRobotDataset have in common."""

    cameras: list[str]
    """Features, the main camera first."""
    height: int
    """Pixels."""
    width: int
    """Pixels."""
    actions: int
    """Columns."""
    readings: int | None
    """Columns; None: there are none."""
    fps: float
    """Frames a second."""

    @classmethod
    def of(cls, episode: Episode) -> Form:
        """Raises `DataError` for a camera whose name cannot be that of a feature."""
        _, height, width, _ = episode.view().shape
        readings = None if episode.proprio_TP is None else episode.proprio_TP.shape[1]
        cameras = [camera_feature(name) for name in episode.cameras]
        return cls(cameras, height, width, episode.actions_TA.shape[1], readings, rate_of(episode))

    def __str__(self) -> str:
        return ", ".join(f"{name} {value}" for name, value in asdict(self).items())


def camera_feature(name: str) -> str:
    """The feature of a camera: observation.images.front for "front"; features stay as they are."""
    if "/" in name or "\0" in name or name.startswith("."):
        raise DataError(f"A LeRobot dataset cannot hold a camera named {name!r}: the name would be that of a folder.")
    return name if name.startswith("observation.") else CAMERA_PREFIX + name


def features_of(form: Form, recording: Recording, options: WriterOptions) -> dict[str, Any]:
    """The entry "features" of `meta/info.json`."""
    # H.264 names the order of its planes; what a reader converts it to is rgb24 in any case.
    pixel_format = "gbrp" if options.pixel_format == "rgb24" else options.pixel_format
    video = {
        "video.fps": number(form.fps),
        "video.height": form.height,
        "video.width": form.width,
        "video.channels": 3,
        "video.codec": "h264",
        "video.pix_fmt": pixel_format,
        "video.is_depth_map": False,
        "has_audio": False,
    }
    frames: dict[str, Any] = {"shape": [form.height, form.width, 3], "names": ["height", "width", "channels"]}
    stored = {"dtype": "image"} if options.frames == "png" else {"dtype": "video", "info": video}
    names = recording.action_names or [f"action_{i}" for i in range(form.actions)]
    features: dict[str, Any] = {
        **{camera: {**frames, **stored} for camera in form.cameras},
        "action": {"dtype": "float32", "shape": [form.actions], "names": names},
    }
    if form.readings is not None:
        features[STATE] = {"dtype": "float32", "shape": [form.readings], "names": recording.proprio_names}
    for name in SCALARS:
        features[name] = {"dtype": "float32" if name == "timestamp" else "int64", "shape": [1], "names": None}
    return features


def number(fps: float) -> float:
    """Frames a second as LeRobot stores them: a whole number where it is one."""
    return int(fps) if float(fps).is_integer() else fps


def table_of_rows(columns: Mapping[str, np.ndarray]) -> pa.Table:
    """Columns (N,) and (N, D) as a table; the latter as lists of D numbers."""
    return pa.table({name: _column(values) for name, values in columns.items()})


def column_of_pictures(frames_THWC: Tensor) -> pa.Array:
    """Frames as PNG files in a column, as the `datasets` library stores images."""
    cells = []
    for frame_HWC in frames_THWC.cpu().numpy():
        file = io.BytesIO()
        Image.fromarray(frame_HWC).save(file, "PNG")
        cells.append({"bytes": file.getvalue(), "path": None})
    return pa.array(cells, pa.struct([("bytes", pa.binary()), ("path", pa.string())]))


def table_of_tasks(tasks: Mapping[str, int]) -> pa.Table:
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


def _column(values: np.ndarray) -> pa.Array:
    if values.ndim == 1:
        return pa.array(values)
    return pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), values.shape[1])
