"""The hooks that keep rollouts of a run and raise alarms about its rewards; `Config` is the section hooks.judging."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from gymnast_judging.options import Config

if TYPE_CHECKING:
    from gymnast_core.config import ComponentConfig
    from gymnast_core.plugins.events import (
        EvaluationDone,
        EvaluationWanted,
        PageWanted,
        RewardsScored,
        RunEvent,
        RunStarted,
        RunStopped,
        StepDone,
    )

__all__ = ["Config"]

_started: dict[Path, int] = {}
"""Iterations that were behind every run of this process when it began or was resumed, by run folder."""
_watches: dict[Path, Any] = {}
"""The `Watch` of every training that this process leads, by run folder."""
_keepers: dict[Path, Any] = {}
"""The `Keeper` of every training that this process takes part in, by run folder."""


def gymnast_run_started(event: RunStarted) -> None:
    """Remember where the run goes on, and forget the rollouts of iterations that it repeats."""
    if event.config.kind == "train":
        from gymnast_judging.stored import remove_later

        _started[event.folder] = event.step
        remove_later(event.folder, event.step)


def gymnast_evaluate(event: EvaluationWanted) -> None:
    """Measure the judge before the run, on the canary; unlike in hooks that only tell, errors stop the run."""
    if event.config.kind == "train" and event.label == "before" and event.parts.processes.leads:
        _watch(event)


def gymnast_rewards_scored(event: RewardsScored) -> None:
    """Keep this process's rollouts; in the leader, look at the latest rewards of all processes."""
    from gymnast_judging.alarms import entries_of

    # First of all, so that no process waits for one that had something else to do.
    entries = [entry for theirs in event.parts.processes.gather(entries_of(event)) for entry in theirs]
    if event.folder not in _keepers:
        from gymnast_judging.keeper import Keeper

        _keepers[event.folder] = Keeper(event, event.section("judging", Config))
    _keepers[event.folder].keep(event.step + 1, event.rollouts, event.rewards)
    if event.parts.processes.leads:
        _watch(event).scored(event.step + 1, sorted(entries, key=lambda entry: entry.group), event)


def gymnast_metrics(event: StepDone) -> None:
    """Once an iteration is complete: make room, and measure the judge when it is time."""
    if event.folder in _watches:
        _watches[event.folder].completed(event.step)


def gymnast_run_stopped(event: RunStopped) -> None:
    """Forget the run."""
    for kept in (_watches, _keepers, _started):
        kept.pop(event.folder, None)


def gymnast_evaluation_done(event: EvaluationDone) -> None:
    """Keep the rollouts of an evaluation that could not be judged."""
    if all(reward.error is None for reward in event.rewards):
        return
    from gymnast_judging.stored import kind_of, store

    judge = _evaluation_judge(event)
    kind = kind_of(judge, event.parts.reward_model)
    store(event.folder, f"evaluation-{event.label}", event.rollouts, event.rewards, judge, reward_kind=kind)


def gymnast_build_page(event: PageWanted) -> Path | None:
    """The page of a folder of `gymnast judge`."""
    from gymnast_core.runs.results import read_kind

    if read_kind(event.folder) != "judge":
        return None
    from gymnast_judging.page import build_confusion_page

    return build_confusion_page(event.folder)


def _watch(event: RunEvent) -> Any:
    if event.folder not in _watches:
        from gymnast_judging.watch import Watch

        done = _started.get(event.folder, 0)
        _watches[event.folder] = Watch(event, event.section("judging", Config), done)
    return _watches[event.folder]


def _evaluation_judge(event: EvaluationDone) -> ComponentConfig:
    """Who judged: a training has one judge for its evaluations, `gymnast evaluate` one a world."""
    if event.config.kind == "train":
        return event.config.evaluation.reward_model
    return event.config.all_rewards()[event.world]
