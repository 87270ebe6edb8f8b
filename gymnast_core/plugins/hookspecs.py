# mypy: disable-error-code="empty-body"
"""The hooks: what functions in a plugin module of the entry-point group `gymnast.hooks` are called, and when.

Each takes one argument, `event`, or none. Its module is imported when a command starts, so heavy imports belong inside
its functions. A module with a dataclass `Config` gets the section `hooks.NAME` of the config, checked before anything
is built; `event.section(NAME, Config)` is that section.

What a function raises is logged and stops nobody, unless the hook says so. A `StorageError`, which `gymnast_core.runs`
raises where a disk refuses, ends the run: it goes on with `--resume` once it can be written down.

Of several processes, each calls `gymnast_rollouts_imagined`, `gymnast_rewards_scored`, `gymnast_steer`,
`gymnast_iteration_learned` and `gymnast_evaluate`, with what it has itself (`event.parts.processes` says which one it
is); everything else is called in the leader alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gymnast_core.plugins import events


def gymnast_register(event: events.Registering) -> None:
    """Add components made at run time, e.g. `event.registries.reward_models.register("judge-b", JudgeB)`."""


def gymnast_callbacks(event: events.CallbacksWanted) -> list[Any]:
    """Return `lightning.Callback` objects to add to the trainer of this run."""


def gymnast_run_started(event: events.RunStarted) -> None:
    """A run begins, or goes on after some of its steps."""


def gymnast_metrics(event: events.StepDone) -> None:
    """A step is complete: its numbers."""


def gymnast_rollouts_imagined(event: events.RolloutsImagined) -> None:
    """Rollouts were imagined; their judgement is under way."""


def gymnast_rewards_scored(event: events.RewardsScored) -> None:
    """Rollouts were judged."""


def gymnast_steer(event: events.SteeringWanted) -> events.Steering | None:
    """Before each iteration's update: leave out tasks, or stop the run. Of several processes, the leader's answer
    counts; an error here ends the run."""


def gymnast_iteration_learned(event: events.IterationLearned) -> None:
    """An iteration has learned: from which groups, and with which advantages. Told before `gymnast_metrics`."""


def gymnast_evaluate(event: events.EvaluationWanted) -> Mapping[str, Any] | None:
    """Measure `event.parts.policy` before the run, after it, every `evaluation.every` iterations; return numbers for
    the summary."""


def gymnast_evaluation_done(event: events.EvaluationDone) -> None:
    """Rollouts of an evaluation were judged."""


def gymnast_run_stopped(event: events.RunStopped) -> None:
    """The run's steps ended or failed."""


def gymnast_run_done(event: events.RunDone) -> None:
    """A run is complete, its summary written."""


def gymnast_build_page(event: events.PageWanted) -> Path | None:
    """Write the page of `event.folder` and return its path; None if the folder is another plugin's."""
