"""The hooks that audit a training's judge on the run's own imagined rollouts; `Config` is the section hooks.gate."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from gymnast_gate.options import Config

if TYPE_CHECKING:
    from gymnast_core.plugins.events import (
        CallbacksWanted,
        PageWanted,
        RewardsScored,
        RunDone,
        RunEvent,
        RunStarted,
        RunStopped,
        Steering,
        SteeringWanted,
    )

__all__ = ["Config"]

_watches: dict[Path, Any] = {}
"""The `Watch` of every training that this process takes part in, by run folder."""


def gymnast_callbacks(event: CallbacksWanted) -> None:
    """Refuse audits that cannot work before anything of the run is built."""
    if _audits(event):
        from gymnast_gate.watch import check

        check(event.config, event.section("gate", Config))


def gymnast_run_started(event: RunStarted) -> None:
    """Forget what a run in this folder found before it was interrupted: it is read anew."""
    _watches.pop(event.folder, None)


def gymnast_rewards_scored(event: RewardsScored) -> None:
    """Keep this process's rollouts of an iteration that is to be audited."""
    if _audits(event):
        _watch(event).keep(event.step + 1, event.rollouts, event.rewards)


def gymnast_steer(event: SteeringWanted) -> Steering | None:
    """Audit; leave out groups of tasks, or stop the run, if it must be."""
    if not _audits(event):
        return None
    answer: Steering | None = _watch(event).steer(event)
    return answer


def gymnast_run_stopped(event: RunStopped) -> None:
    """Forget what was kept for the next audit."""
    if event.folder in _watches:
        _watches[event.folder].forget()


def gymnast_run_done(event: RunDone) -> None:
    """Keep the policy of the best audit beside the last one."""
    watch = _watches.pop(event.folder, None)
    if watch is not None:
        watch.save_best(event)


def gymnast_build_page(event: PageWanted) -> Path | None:
    """`gate.html` of a folder that `gymnast gate` wrote."""
    from gymnast_core.runs.results import read_kind

    if read_kind(event.folder) != "gate":
        return None
    from gymnast_gate.page import build_gate_page

    return build_gate_page(event.folder)


def _audits(event: RunEvent) -> bool:
    """Whether this is a training that is audited."""
    if event.config.kind != "train":
        return False
    options = event.section("gate", Config)
    return bool(options.every or options.leave_out)


def _watch(event: RunEvent) -> Any:
    if event.folder not in _watches:
        from gymnast_gate.watch import Watch

        _watches[event.folder] = Watch(event, event.section("gate", Config))
    return _watches[event.folder]
