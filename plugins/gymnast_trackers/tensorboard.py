"""The hooks that write TensorBoard's files, RUN/tensorboard; `Config` is the section hooks.tensorboard."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gymnast_core.plugins.hooks import hookimpl

if TYPE_CHECKING:
    from gymnast_core.plugins.events import RunStarted, RunStopped, StepDone


@dataclass(frozen=True)
class Config:
    """Curves for TensorBoard: `tensorboard --logdir runs`."""

    enabled: bool = True
    """Whether RUN/tensorboard is written."""


_first: dict[Path, int] = {}
"""The first step of every run of this process, by run folder."""
_files: dict[Path, Any] = {}
"""The `EventsFile` of every run that has made a step in this process."""


def gymnast_run_started(event: RunStarted) -> None:
    """Remember where the run goes on: what earlier files hold of later steps is void."""
    if event.section("tensorboard", Config).enabled:
        _first[event.folder] = event.step + 1


@hookimpl(trylast=True)
def gymnast_metrics(event: StepDone) -> None:
    """One point of each curve."""
    if event.folder not in _first:
        return
    if event.folder not in _files:
        from gymnast_trackers.events_file import EventsFile

        _files[event.folder] = EventsFile(event.folder / "tensorboard", _first[event.folder])
    _files[event.folder].add(event.step, event.metrics)


def gymnast_run_stopped(event: RunStopped) -> None:
    """Close the file, whether the run ended or failed."""
    _first.pop(event.folder, None)
    if event.folder in _files:
        _files.pop(event.folder).close()
