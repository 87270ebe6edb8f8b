"""Which frames of a video belong to the rows of an episode: their timestamps decide, or nothing does.

LeRobot shows a row the frame at `from_timestamp + timestamp`. Clocks and videos that do not begin at zero shift that;
here such a shift is taken out where the number of frames leaves one reading only, and is an error otherwise.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gymnast_core.errors import DataError
from gymnast_episodes import REPAIR
from gymnast_episodes.lerobot_layout import Video
from gymnast_episodes.video import VideoIndex

_ROUNDING = 0.1
"""Share of a frame's duration by which times differ that mean the same."""
_JITTER = 0.5
"""Share of a frame's duration by which a clock may be off where counting says which frame is meant."""


def frames_of_rows(
    path: Path, index: VideoIndex, video: Video, seconds_T: NDArray[np.float64] | None, fps: float, rows: int
) -> NDArray[np.int64]:
    """Frame of the video for each row of an episode, increasing.

    Args:
        path: the video, for errors.
        index: its frames.
        video: where the episode is in it.
        seconds_T: timestamp of each row; None where there are none.
        fps: of the dataset.
        rows: T.

    Raises:
        DataError: the rows' times and the video's contradict each other, or could be meant in several ways.
    """
    first, count = _part(path, index, video, fps)
    if seconds_T is None:
        if count == rows:
            return first + np.arange(rows)
        raise DataError(f"{path} has {count} frames for {rows} rows, which have no timestamp. {REPAIR}")
    if not np.isfinite(seconds_T).all():
        raise DataError(f"The timestamps of the episode of {path} contain NaN or infinite values. {REPAIR}")
    if count == rows:
        # One frame a row: an offset of the clock has no meaning.
        frames_T = first + np.arange(rows)
        passed_T = index.times_T[frames_T] - index.times_T[first]
        late_T = np.abs(passed_T - (seconds_T - seconds_T[0]))
        allowed = _JITTER
    else:
        zero = index.times_T[first] if video.start is not None else 0.0
        frames_T = index.frames_at(zero + seconds_T)
        late_T = np.abs(index.times_T[frames_T] - zero - seconds_T)
        allowed = _ROUNDING
        if abs(seconds_T[0]) > _ROUNDING / fps and not (first <= frames_T[0] and frames_T[-1] < first + count):
            raise _contradiction(path, video, f"the rows' clock starts at {seconds_T[0]:.3f} s", count, rows)
    if late_T.max() * fps > allowed or (np.diff(frames_T) < 1).any():
        worst = f"row {int(late_T.argmax())} is {late_T.max():.3f} s away from every frame that it could mean"
        raise _contradiction(path, video, worst, count, rows)
    return frames_T


def _part(path: Path, index: VideoIndex, video: Video, fps: float) -> tuple[int, int]:
    """The first frame of the episode's part of a video, and the number of frames of that part."""
    begins = float(index.times_T[0])
    if video.start is None:
        return 0, len(index)
    shift = 0.0
    if abs(begins) > _ROUNDING / fps:
        low, high = video.span or (video.start, video.start)
        filled = abs((high - low) * fps - len(index)) < _JITTER
        if filled and abs(low) <= _ROUNDING / fps:
            shift = begins  # the metadata counts from the video's first frame
        elif not (filled and abs(low - begins) <= _ROUNDING / fps):
            raise DataError(
                f"The first frame of {path} is shown at {begins:.3f} s, and the metadata does not say whether its "
                f"times count from there. Write the video anew so that it starts at 0 s. {REPAIR}"
            )
    first = index.frame_at(video.start + shift)
    if abs(index.times_T[first] - shift - video.start) * fps > 2.5 * _ROUNDING:
        raise DataError(f"The video {path} has no frame at {video.start:.3f} s, where an episode starts. {REPAIR}")
    if video.stop is None:
        return first, len(index) - first
    behind = int(np.searchsorted(index.times_T, video.stop + shift - _JITTER / fps))
    return first, max(behind - first, 0)


def _contradiction(path: Path, video: Video, why: str, count: int, rows: int) -> DataError:
    place = "" if video.start is None else f" from {video.start:.3f} s on"
    return DataError(
        f"The video {path} does not show the episode{place} ({count} frames, {rows} rows): {why}. {REPAIR}"
    )
