"""The hooks through which a run gets its videos and its report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    from gymnast_core.config import RunConfig
    from gymnast_core.types import Reward, Rollout

hookimpl = pluggy.HookimplMarker("gymnast")

TRAINING_VIDEOS = 4
"""Imagined rollouts kept of an iteration."""
TRAINING_INTERVAL = 5
"""Iterations between those that are kept; the first and the last always are."""


@hookimpl
def gymnast_rewards_scored(
    config: RunConfig, rollouts: Sequence[Rollout], rewards: Sequence[Reward], step: int
) -> None:
    """Keep videos of a few imagined rollouts and how they were judged."""
    last = config.loop.iterations - 1
    if config.output is None or (step % TRAINING_INTERVAL and step < last):
        return
    from gymnast_report.gallery import IMAGINED, balanced, record

    chosen = balanced(rollouts, rewards, TRAINING_VIDEOS)
    record(
        Path(config.output) / "videos",
        f"iteration-{step:06d}",
        IMAGINED,
        [rollouts[i] for i in chosen],
        [rewards[i] for i in chosen],
    )


@hookimpl
def gymnast_evaluation_done(
    config: RunConfig, label: str, rollouts: Sequence[Rollout], rewards: Sequence[Reward]
) -> None:
    """Keep videos of the same tasks in every evaluation, so that they can be shown side by side."""
    if config.output is None:
        return
    from gymnast_core.config import EvaluationConfig
    from gymnast_report.gallery import ENVIRONMENT, IMAGINED, read_clips, record, same_tasks
    from gymnast_report.report import build_report

    knows_outcome = any(rollout.outcome is not None for rollout in rollouts)
    kind = ENVIRONMENT if knows_outcome else IMAGINED
    videos = Path(config.output) / "videos"
    shown = [clip.task for clip in read_clips(videos) if clip.kind == kind and clip.phase == "before"]
    chosen = same_tasks(rollouts, shown, getattr(config, "evaluation", EvaluationConfig()).videos)
    record(videos, label, kind, [rollouts[i] for i in chosen], [rewards[i] for i in chosen])
    build_report(Path(config.output))


@hookimpl
def gymnast_run_done(config: RunConfig, summary: Mapping[str, Any]) -> None:
    """Write `report.html`."""
    if config.output is None:
        return
    from gymnast_report.report import build_report

    build_report(Path(config.output), summary=summary)
