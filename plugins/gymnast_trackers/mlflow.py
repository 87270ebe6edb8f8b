"""The hooks that follow runs in MLflow; `Config` is the section hooks.mlflow."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gymnast_core.plugins.hooks import hookimpl
from gymnast_trackers.following import Following
from gymnast_trackers.mlflow_options import Config

if TYPE_CHECKING:
    from gymnast_core.plugins.events import RunDone, RunStarted, RunStopped, StepDone
    from gymnast_trackers.sink import Opening, Sink

__all__ = ["Config"]


def _open(config: Any, opening: Opening) -> Sink:
    from gymnast_trackers.mlflow_sink import MlflowSink

    return MlflowSink(config, opening)


_following = Following("mlflow", Config, _open)


def gymnast_run_started(event: RunStarted) -> None:
    """Begin a run in the tracker, or go on with it."""
    _following.started(event)


@hookimpl(trylast=True)
def gymnast_metrics(event: StepDone) -> None:
    """Send what cannot change any more."""
    _following.stepped(event)


@hookimpl(trylast=True)
def gymnast_run_stopped(event: RunStopped) -> None:
    """End the tracker's run, if this one is not complete; it goes on with --resume."""
    _following.stopped(event)


@hookimpl(trylast=True)
def gymnast_run_done(event: RunDone) -> None:
    """Send the rest and the page, and end the tracker's run."""
    _following.done(event)
