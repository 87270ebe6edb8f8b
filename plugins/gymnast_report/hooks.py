"""The hooks through which a run gets its metrics, progress display, videos and report."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gymnast_core.config import ComponentConfig
    from gymnast_core.plugins import events

TRAINING_VIDEOS = 4
"""Imagined rollouts kept of an iteration."""
TRAINING_INTERVAL = 5
"""Iterations between those that are kept; the first and the last always are."""
REPORTED = ("train", "fit")
"""Commands whose runs have a report.html."""

_recorders: dict[Path, Any] = {}
"""Recorder of every run that is going on in this process, by run folder."""
_keepers: dict[Path, Any] = {}
"""Who keeps its page, likewise."""
_groups: dict[Path, Any] = {}
"""Who notes what it learned from, of every training that this process takes part in."""


def gymnast_run_started(event: events.RunStarted) -> None:
    """Begin to record metrics and to show progress."""
    from gymnast_pages.measure import judge_name
    from gymnast_report.groups import forget_later
    from gymnast_report.keeping import PageKeeper
    from gymnast_report.recorder import Recorder

    judge = judge_name(getattr(event.config, "reward_model", None))
    _recorders[event.folder] = Recorder(event.folder, event.title, event.total, event.unit, event.step, judge)
    _keepers[event.folder] = PageKeeper(event)
    _keepers[event.folder].started()
    _groups.pop(event.folder, None)
    if event.config.kind == "train":
        forget_later(event.folder, event.step)


def gymnast_iteration_learned(event: events.IterationLearned) -> None:
    """Write down what all processes learned from; film the group that weighed most, in the process that has it."""
    row = _record_of_groups(event).done(event.step, event.learned)
    if row is not None and event.learned is not None and _is_filmed(event, event.step):
        from gymnast_report.group_view import film_group

        film_group(event.folder / "videos", row, event.learned)


def gymnast_metrics(event: events.StepDone) -> None:
    """Record a step, and show it where the page is older than it need be."""
    _recorders[event.folder].log(event.step, event.metrics)
    _keepers[event.folder].step_done()


def gymnast_run_stopped(event: events.RunStopped) -> None:
    """Close the files and the progress display, whether the run ended or failed, and write down which."""
    if event.folder in _recorders:
        _recorders.pop(event.folder).close()
    _groups.pop(event.folder, None)
    if keeper := _keepers.get(event.folder):
        keeper.stopped(event.error, event.step)
        if event.error is not None:
            del _keepers[event.folder]


def gymnast_rewards_scored(event: events.RewardsScored) -> None:
    """Keep videos of a few rollouts of the iteration and how they were judged: of several processes, the leader's."""
    iteration = event.step + 1
    _record_of_groups(event).judged(event.rollouts, event.rewards)
    if not _is_filmed(event, iteration) or not event.parts.processes.leads:
        return
    from gymnast_report.gallery import TRAINING, balanced, kind_of, record

    measure = _measure(event, event.config.reward_model)
    chosen = balanced(event.rollouts, event.rewards, TRAINING_VIDEOS, measure)
    record(
        event.folder / "videos",
        f"iteration-{iteration:06d}",
        kind_of(event.rollouts),
        [event.rollouts[i] for i in chosen],
        [event.rewards[i] for i in chosen],
        measure,
        source=TRAINING,
    )


def gymnast_evaluation_done(event: events.EvaluationDone) -> None:
    """Keep videos of the same tasks in every evaluation of a training, so that they can be shown side by side."""
    if event.config.kind != "train":  # `gymnast evaluate` films its own trials
        return
    from gymnast_report.gallery import EVALUATION, kind_of, read_clips, record, same_tasks
    from gymnast_report.report import build_report

    kind, videos, part = kind_of(event.rollouts), event.folder / "videos", event.config.evaluation
    shown = [clip.task for clip in read_clips(videos) if clip.kind == kind and clip.phase == "before"]
    # Of several processes, the one that films has the first batch, whatever else it has.
    chosen = same_tasks(event.rollouts, shown, part.videos, below=event.config.loop.imagine_batch_size)
    measure = _measure(event, part.reward_model)
    rollouts, rewards = [event.rollouts[i] for i in chosen], [event.rewards[i] for i in chosen]
    record(videos, event.label, kind, rollouts, rewards, measure, source=EVALUATION)
    build_report(event.folder)


def gymnast_run_done(event: events.RunDone) -> None:
    """Write `report.html`."""
    if event.config.kind not in REPORTED:
        return
    from gymnast_report.report import build_report

    if keeper := _keepers.pop(event.folder, None):
        keeper.finished(event.step)
    build_report(event.folder, summary=event.summary)


def gymnast_build_page(event: events.PageWanted) -> Path | None:
    """`report.html` of a folder that `gymnast train` or `gymnast fit` wrote."""
    from gymnast_core.runs.results import read_kind

    if read_kind(event.folder) not in REPORTED:
        return None
    from gymnast_report.report import build_report

    return build_report(event.folder)


def _record_of_groups(event: events.RunEvent) -> Any:
    """This process's part in the record of what the run learned from. Followers are not told that a run begins."""
    if event.folder not in _groups:
        from gymnast_report.groups import GroupRecord

        _groups[event.folder] = GroupRecord(event.folder, event.parts.processes)
    return _groups[event.folder]


def _is_filmed(event: events.RunEvent, iteration: int) -> bool:
    return iteration in (1, event.config.loop.iterations) or iteration % TRAINING_INTERVAL == 0


def _measure(event: events.RunEvent, judge: ComponentConfig) -> Any:
    """What the numbers of the event's reward model are."""
    from gymnast_pages.measure import Measure, judge_name

    reward_model = event.parts.reward_model
    return Measure("success" if reward_model is None else reward_model.kind, judge_name(judge))
