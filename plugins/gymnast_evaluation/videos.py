"""Videos of the same trials of every policy in every world, so that they can be shown side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from gymnast_core.types import Rollout


def filmed_trials(trials: int, videos: int) -> set[int]:
    """Numbers of the trials that are filmed: `videos` of them, spread evenly; outcomes play no part."""
    count = min(trials, videos)
    return {number * trials // count for number in range(count)}


def video_path(folder: Path, policy: str, world: str, index: int) -> Path:
    """Where the video of a trial is kept; its poster is beside it, with the suffix .jpg."""
    return folder / "videos" / policy / world / f"{index:06d}.mp4"


def film(folder: Path, policy: str, world: str, rollouts: Sequence[Rollout], wanted: set[int]) -> None:
    """Write the videos of those rollouts whose group, the trial's number, is wanted."""
    from gymnast_pages.video import side_by_side, write_poster, write_video

    for rollout in rollouts:
        if rollout.group in wanted:
            path = video_path(folder, policy, world, rollout.group)
            picture_THWC = side_by_side(rollout.frames_TVHWC)
            write_video(picture_THWC, path)
            write_poster(picture_THWC, path.with_suffix(".jpg"))
