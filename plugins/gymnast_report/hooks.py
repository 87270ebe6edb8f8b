"""The hooks through which a run gets its metrics, progress display, videos and report."""

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

_recorders: dict[str, Any] = {}
"""Recorder of every run that is going on in this process, by run folder."""


@hookimpl
def gymnast_run_started(config: Any, title: str, step: int, total: int, unit: str) -> None:
    """Begin to record metrics and to show progress."""
    from gymnast_report.recorder import Recorder

    _recorders[config.output] = Recorder(Path(config.output), title, total, unit, step)


@hookimpl
def gymnast_metrics(config: Any, step: int, metrics: Mapping[str, float]) -> None:
    """Record a step."""
    _recorders[config.output].log(step, metrics)


@hookimpl
def gymnast_run_stopped(config: Any) -> None:
    """Close the files and the progress display, whether the run ended or failed."""
    if config.output in _recorders:
        _recorders.pop(config.output).close()


@hookimpl
def gymnast_rewards_scored(
    config: RunConfig, rollouts: Sequence[Rollout], rewards: Sequence[Reward], step: int
) -> None:
    """Keep videos of a few rollouts of the iteration and how they were judged."""
    iteration = step + 1
    wanted = iteration in (1, config.loop.iterations) or iteration % TRAINING_INTERVAL == 0
    if config.output is None or not wanted:
        return
    from gymnast_report.gallery import balanced, kind_of, record
    from gymnast_report.report import build_report

    chosen = balanced(rollouts, rewards, TRAINING_VIDEOS)
    record(
        Path(config.output) / "videos",
        f"iteration-{iteration:06d}",
        kind_of(rollouts),
        [rollouts[i] for i in chosen],
        [rewards[i] for i in chosen],
    )
    build_report(Path(config.output))


@hookimpl
def gymnast_evaluation_done(
    config: RunConfig, label: str, rollouts: Sequence[Rollout], rewards: Sequence[Reward]
) -> None:
    """Keep videos of the same tasks in every evaluation of a training, so that they can be shown side by side."""
    if config.output is None or config.kind == "evaluate":  # `gymnast evaluate` films its own trials
        return
    from gymnast_core.config import EvaluationConfig
    from gymnast_report.gallery import kind_of, read_clips, record, same_tasks
    from gymnast_report.report import build_report

    kind = kind_of(rollouts)
    videos = Path(config.output) / "videos"
    shown = [clip.task for clip in read_clips(videos) if clip.kind == kind and clip.phase == "before"]
    chosen = same_tasks(rollouts, shown, getattr(config, "evaluation", EvaluationConfig()).videos)
    record(videos, label, kind, [rollouts[i] for i in chosen], [rewards[i] for i in chosen])
    build_report(Path(config.output))


@hookimpl
def gymnast_run_done(config: RunConfig, summary: Mapping[str, Any]) -> None:
    """Write `report.html`, or `evaluation.html` for `gymnast evaluate`."""
    if config.output is None:
        return
    if config.kind == "evaluate":
        from gymnast_evaluation.page import build_evaluation_page

        build_evaluation_page(Path(config.output))
        return
    from gymnast_report.report import build_report

    build_report(Path(config.output), summary=summary)
