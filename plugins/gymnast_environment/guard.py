"""Whether an environment starts where a task says: its pictures and readings against the task's last context frame."""

from __future__ import annotations

import numpy as np

from gymnast_core.errors import DataError, unknown_name
from gymnast_core.types import Task
from gymnast_environment.view import View
from gymnast_environment.worker.pictures import LEVELS, differing_share
from gymnast_environment.worker.seeing import Sensed

READINGS = 1e-3
"""By how much a reading may differ from the task's: as a number, and as a share of it."""


def check_start(task: Task, sensed: Sensed, view: View, tolerance: float) -> None:
    """Raises `DataError` if an environment shows something else than the task begins with.

    `tolerance` is the share of a camera's pixels that may differ (`worker.pictures.differing_share`).
    """
    assert task.start is not None
    found = _pictures_differ(task, sensed, view, tolerance) or _readings_differ(task, sensed)
    if found is not None:
        raise DataError(
            f"Task {task.id!r} starts from a frame that {task.start.id} does not show after "
            f"reset(seed={task.start.seed}): {found}. Regenerate the tasks, look at the environment as they do (view), "
            "or set check_first_frame=false to start from the environment's own frame."
        )


def expected_frames(task: Task, view: View) -> np.ndarray:
    """The task's last context frame in the view's cameras, uint8 (V, H, W, C). `DataError` for a camera it lacks."""
    for name in view.camera_names:
        if name not in task.cameras:
            raise DataError(f"Task {task.id!r}: {unknown_name('camera', name, task.cameras)}")
    places = [task.cameras.index(name) for name in view.camera_names] or [0]
    return task.frames_TVHWC[-1][places].cpu().numpy()


def _pictures_differ(task: Task, sensed: Sensed, view: View, tolerance: float) -> str | None:
    expected_VHWC, frames_VHWC = expected_frames(task, view), sensed.frames_VHWC
    if expected_VHWC.shape != frames_VHWC.shape:
        return f"shape {frames_VHWC.shape[1:]} instead of {expected_VHWC.shape[1:]}"
    shares = [differing_share(*pair) for pair in zip(frames_VHWC, expected_VHWC, strict=True)]
    worst = int(np.argmax(shares))
    if shares[worst] <= tolerance:
        return None
    camera = f" of the camera {view.camera_names[worst]}" if view.camera_names else ""
    return (
        f"{shares[worst]:.2%} of the pixels{camera} differ by more than {LEVELS} levels; "
        f"first_frame_tolerance allows {tolerance:.2%}"
    )


def _readings_differ(task: Task, sensed: Sensed) -> str | None:
    if task.proprio_TP is None or sensed.proprio_P is None:
        return None
    expected_P = task.proprio_TP[-1].cpu().numpy()
    if expected_P.shape != sensed.proprio_P.shape:
        return f"{len(sensed.proprio_P)} readings instead of {len(expected_P)}"
    off_P = np.abs(sensed.proprio_P - expected_P) > READINGS + READINGS * np.abs(expected_P)
    if not off_P.any():
        return None
    place = int(np.flatnonzero(off_P)[0])
    return f"reading {place} is {sensed.proprio_P[place]:.6g} instead of {expected_P[place]:.6g}"
