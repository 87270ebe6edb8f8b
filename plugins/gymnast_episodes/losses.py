"""What a format needs of an episode, and what it cannot hold: asked for, or told."""

from __future__ import annotations

import logging
from dataclasses import replace

import torch

from gymnast_core.errors import DataError
from gymnast_core.types import Episode
from gymnast_episodes.writers import EpisodeWriter

log = logging.getLogger(__name__)


def checked(episode: Episode) -> Episode:
    """The episode, if it fulfils the contract as far as writers rely on it. Raises `DataError`."""
    frames, actions, readings = episode.view(), episode.actions_TA, episode.proprio_TP
    if frames.dtype != torch.uint8 or frames.ndim != 4 or frames.shape[-1] != 3 or len(frames) < 2:
        raise DataError(
            f"Episode {episode.id!r} has frames {frames.dtype} {tuple(frames.shape)}, not uint8 (T, H, W, 3)."
        )
    if actions.ndim != 2 or len(actions) != len(frames) - 1:
        raise DataError(f"Episode {episode.id!r} has {len(frames)} frames and actions {tuple(actions.shape)}.")
    if not torch.isfinite(actions).all():
        raise DataError(f"Episode {episode.id!r} has NaN or infinite actions.")
    if readings is not None and (readings.ndim != 2 or len(readings) != len(frames) or not readings.isfinite().all()):
        raise DataError(
            f"Episode {episode.id!r} has {len(frames)} frames and readings {tuple(readings.shape)}, or NaN among them."
        )
    return episode


def at_rate(episode: Episode, writer: EpisodeWriter, fps: float | None) -> Episode:
    """The episode with the rate at which it is written: `fps` if given, else its own. `DataError` without one."""
    rate = fps or episode.fps
    if rate is None and writer.needs_fps:
        raise DataError(
            f"Nothing says how many frames a second episode {episode.id!r} has. Give them: --fps N (control steps a "
            "second)."
        )
    return replace(episode, fps=rate)


def tell_what_is_lost(episode: Episode, writer: EpisodeWriter, to: str, fps: float | None) -> None:
    """Warn, once a conversion, of what the source has and the output will not have."""
    recording = writer.recording
    if fps is not None and writer.needs_fps and episode.fps not in (None, fps):
        log.warning("Written at %g frames a second, as --fps says; the source says %g.", fps, episode.fps)
    if recording.left_out:
        log.warning("Not read from the source, and not written: %s.", ", ".join(recording.left_out))
    has = {
        "cameras": [f"camera {name}" for name in episode.cameras[1:]],
        "readings": [] if episode.proprio_TP is None else ["the readings (proprio_TP)"],
        "names": [
            f"the names of the {what}"
            for what, names in (("actions", recording.action_names), ("readings", recording.proprio_names))
            if names
        ],
        "robot": [f"the robot ({recording.robot})"] if recording.robot else [],
        "success": [] if episode.success is None else ["success"],
        "outcomes": ["outcomes of other instructions"] if episode.outcomes else [],
        "start": [] if episode.start is None else ["the environment's start"],
        "points": [] if episode.points_TJ2 is None else ["points of interest"],
    }
    lost = [what for kind, found in has.items() if kind not in writer.keeps for what in found]
    if lost and not writer.keeps_all:
        log.warning("%s cannot hold, so that it is left out: %s.", to, ", ".join(lost))
