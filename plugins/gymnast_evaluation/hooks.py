"""The hooks through which a training run measures its policy, and `gymnast evaluate` gets its page."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gymnast_core.plugins import events


def gymnast_callbacks(event: events.CallbacksWanted) -> None:
    """Refuse an evaluation that cannot work before anything of the run is built."""
    if event.config.kind == "train":
        from gymnast_evaluation.during import check

        check(event.config)


def gymnast_run_started(event: events.RunStarted) -> None:
    """Forget what an interrupted run measured after the iteration from which it goes on."""
    if event.config.kind == "train":
        from gymnast_evaluation.during import forget_after

        forget_after(event.folder, event.step)


def gymnast_evaluate(event: events.EvaluationWanted) -> Mapping[str, Any] | None:
    """Success on the held-out tasks of `config.evaluation`, and its difference from the evaluation "before".

    The result is kept in RUN/evaluations; a resumed run does not repeat what is there.
    """
    if event.config.evaluation.tasks is None:
        return None
    from gymnast_evaluation.during import measure

    return measure(event)


def gymnast_run_done(event: events.RunDone) -> None:
    """The page of `gymnast evaluate`, or one sentence on what a training changed."""
    if event.config.kind == "evaluate":
        from gymnast_evaluation.page import build_evaluation_page

        build_evaluation_page(event.folder)
    elif event.config.kind == "train":
        import click

        from gymnast_evaluation.during import sentence

        if said := sentence(event.folder):
            said += f" The page: {event.folder / 'report.html'}"
            # Of the command, the answer is the last word.
            context = click.get_current_context(silent=True)
            tell = functools.partial(click.echo, said)
            context.call_on_close(tell) if context is not None else tell()


def gymnast_build_page(event: events.PageWanted) -> Path | None:
    """`evaluation.html` of a folder that `gymnast evaluate` wrote."""
    from gymnast_core.runs.results import read_kind

    if read_kind(event.folder) != "evaluate":
        return None
    from gymnast_evaluation.page import build_evaluation_page

    return build_evaluation_page(event.folder)
