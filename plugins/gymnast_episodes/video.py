"""Frames of a video by index, decoded from the last key frame before them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from gymnast_core.errors import DataError
from gymnast_episodes import REPAIR
from gymnast_episodes.foreign import reading


@dataclass(frozen=True)
class VideoIndex:
    """Where the frames of a video are, read from its packets without decoding any."""

    pts_T: NDArray[np.int64]
    """Presentation time of each frame in display order, in units of `time_base`."""
    key_pts: NDArray[np.int64]
    """Presentation times of the frames that decode on their own, in order."""
    time_base: float
    """Seconds a unit of `pts_T`."""

    def __len__(self) -> int:
        return len(self.pts_T)

    def frame_at(self, seconds: float) -> int:
        """Index of the frame whose time is nearest to `seconds`."""
        return int(self.frames_at(np.array([seconds]))[0])

    def frames_at(self, seconds_N: NDArray[np.float64]) -> NDArray[np.int64]:
        """Index of the frame whose time is nearest, for each of these."""
        behind_N = np.searchsorted(self.times_T, seconds_N).clip(0, len(self) - 1)
        before_N = (behind_N - 1).clip(0)
        late_N, early_N = seconds_N - self.times_T[before_N], self.times_T[behind_N] - seconds_N
        return np.where(np.abs(late_N) <= np.abs(early_N), before_N, behind_N)

    def seconds(self, frame: int) -> float:
        """Presentation time of a frame."""
        return float(self.pts_T[frame] * self.time_base)

    @cached_property
    def times_T(self) -> NDArray[np.float64]:
        """Presentation time of each frame, seconds."""
        return (self.pts_T * self.time_base).astype(np.float64)

    @property
    def fps(self) -> float | None:
        """Frames a second, if the frames follow each other evenly (within a twentieth of their distance)."""
        distances = np.diff(self.pts_T)
        if not len(distances) or not self.time_base:
            return None
        even = (np.abs(distances - distances.mean()) <= max(0.05 * distances.mean(), 1)).all()
        return float(round(1 / (distances.mean() * self.time_base), 3)) if even else None


def video_index(path: Path) -> VideoIndex:
    """The index of a video file, remembered while the file does not change.

    Raises `DataError` if the file is missing, empty, truncated or no video.
    """
    try:
        stat = path.stat()
    except OSError:
        raise DataError(f"No video {path}.") from None
    if stat.st_size == 0:
        raise DataError(f"The video {path} is empty (0 bytes). {REPAIR}")
    return _index(path, stat.st_size, stat.st_mtime_ns)


def read_chosen(path: Path, frames_T: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Frames of these increasing numbers, uint8 RGB (T, H, W, 3); errors as of `read_frames`."""
    first = int(frames_T[0])
    return read_frames(path, first, int(frames_T[-1]) + 1)[frames_T - first]


def read_frames(path: Path, start: int = 0, stop: int | None = None) -> NDArray[np.uint8]:
    """Frames `start` to `stop` (excluded; None: to the end) of a video, uint8 RGB (T, H, W, 3).

    Only the frames from the last key frame before `start` on are decoded. No file stays open, so that callers can
    be sent to other processes. Raises `DataError` naming the file if it is damaged or has too few frames.
    """
    index = video_index(path)
    stop = len(index) if stop is None else stop
    if not 0 <= start < stop <= len(index):
        raise DataError(f"The video {path} has {len(index)} frames; frames {start} to {stop - 1} were asked for.")
    before = index.key_pts[index.key_pts <= index.pts_T[start]]
    key = int(before[-1]) if len(before) else None
    frames_THWC = _decode(path, index, start, stop, key)
    if frames_THWC is None and key is not None:
        # A container may land elsewhere than asked; its beginning is always found.
        frames_THWC = _decode(path, index, start, stop, None)
    if frames_THWC is None:
        raise DataError(f"The video {path} is damaged: not all of frames {start} to {stop - 1} decode. {REPAIR}")
    return frames_THWC


@lru_cache(maxsize=64)
def _index(path: Path, size: int, modified_ns: int) -> VideoIndex:
    with _opened(path) as (container, stream):
        promised, time_base = stream.frames, float(stream.time_base or 0)
        times: list[int | None] = []
        keys: list[int] = []
        whole = 0
        for packet in container.demux(stream):
            if not packet.size:
                continue
            whole += not packet.is_corrupt
            if packet.is_discard:
                continue
            times.append(packet.pts)
            if packet.is_keyframe and packet.pts is not None:
                keys.append(packet.pts)
    if not times or whole < promised:
        raise DataError(f"The video {path} is truncated: {whole} of {promised} frames are there. {REPAIR}")
    if None in times:
        raise DataError(f"The video {path} has frames without a time. Write it anew as .mp4.")
    pts_T = np.sort(np.array(times, np.int64))
    if (np.diff(pts_T) == 0).any():
        raise DataError(f"The video {path} shows two frames at the same time. Write it anew.")
    return VideoIndex(pts_T, np.sort(np.array(keys, np.int64)), time_base)


def _decode(path: Path, index: VideoIndex, start: int, stop: int, key: int | None) -> NDArray[np.uint8] | None:
    """The frames, or None if some did not come out whole; `key` is the time of the key frame to start at."""
    pictures: dict[int, NDArray[np.uint8]] = {}
    wanted = {int(pts): i for i, pts in enumerate(index.pts_T[start:stop])}
    first, last = int(index.pts_T[0]) if key is None else key, int(index.pts_T[stop - 1])
    converter = VideoReformatter()
    with _opened(path) as (container, stream):
        if key is not None:
            container.seek(key, stream=stream, backward=True)
        for frame in container.decode(stream):
            if frame.pts is None or frame.pts > last:
                break
            # Later frames are built on damaged ones. Those shown before the key frame may lack what lies behind it.
            if frame.is_corrupt and frame.pts >= first:
                return None
            i = wanted.pop(frame.pts, None)
            if i is None:
                continue
            picture: Any = converter.reformat(frame, format="rgb24", threads=1).to_ndarray()
            pictures[i] = upright(path, frame, picture)
            if pictures[i].shape != next(iter(pictures.values())).shape:
                raise DataError(f"The video {path} changes its size on the way. Write it anew.")
            if not wanted:
                break
    return None if wanted else np.stack([pictures[i] for i in range(stop - start)])


def upright(path: Path, frame: Any, picture_HWC: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A picture as players show it: turned and mirrored as the container's display matrix says.

    Raises `DataError` for a matrix that does more than quarter turns and mirroring.
    """
    data = frame.side_data.get("DISPLAYMATRIX")
    if data is None:
        return picture_HWC
    # x' = a x + c y, y' = b x + d y, in units of 2**-16; ISO 14496-12, track header.
    a, b, _, c, d = (round(value / 2**16, 2) for value in np.frombuffer(bytes(data), np.int32)[:5].tolist())
    if (b, c) == (0, 0) and abs(a) == abs(d) == 1:
        across, down = a, d
    elif (a, d) == (0, 0) and abs(b) == abs(c) == 1:
        picture_HWC = picture_HWC.transpose(1, 0, 2)
        across, down = c, b
    else:
        raise DataError(f"The video {path} is shown turned by a matrix ({a} {b} {c} {d}) that is no quarter turn.")
    return picture_HWC[:: int(down), :: int(across)]


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Any, Any]]:
    with reading(f"the video {path}"), av.open(str(path)) as container:
        if not container.streams.video:
            raise DataError(f"{path} holds no video. {REPAIR}")
        stream = container.streams.video[0]
        # Data loaders work in parallel already; more threads only add delay to short requests.
        stream.codec_context.thread_count = 1
        yield container, stream
