"""What an environment's verdict is about: the instruction that it knows, which need not be what a task asks for."""

from __future__ import annotations

from gymnast_core.types import EnvironmentStart, Task
from gymnast_environment.view import View
from gymnast_environment.worker.seeing import Sensed

TOLD = "instruction"
"""Key of a reset's `options` under which an environment is told what to do."""


def own_goal(start: EnvironmentStart) -> str | None:
    """What the environment judges success by; None where nobody said."""
    told = start.options.get(TOLD)
    return start.instruction if start.instruction is not None else told if isinstance(told, str) else None


def other_goal(task: Task) -> str | None:
    """The task's instruction, if its environment judges by another one; None where they agree or nobody said."""
    own = None if task.start is None else own_goal(task.start)
    return None if own is None or _plain(own) == _plain(task.instruction) else task.instruction


def outcome_of(sensed: Sensed, goal: str | None, view: View) -> float | None:
    """Success in [0, 1] as the environment says: of its own goal (None), or of another one, if that is known."""
    if goal is None:
        return sensed.outcome
    if view.stop_on_success:  # it was over when its own goal was reached, and this one might have come later
        return None
    known = {_plain(text): done for text, done in sensed.outcomes.items()}
    found = known.get(_plain(goal))
    return None if found is None else float(found)


def unknowable(task: Task, view: View) -> str | None:
    """Why the environment behind a task cannot say whether that is fulfilled, and what to do; None where it may."""
    goal = other_goal(task)
    if goal is None or task.start is None or (view.outcomes_key is not None and not view.stop_on_success):
        return None
    why = (
        "ends an episode when that is reached (view.stop_on_success)"
        if view.outcomes_key is not None
        else "says nothing of others"
    )
    return (
        f"{task.start.id} judges by its own instruction {own_goal(task.start)!r} and {why}, so that its success says "
        f"nothing of {goal!r}. Choose a judge that reads the instruction (success-classifier, openai-compatible, …); "
        "or tasks whose environment is told it: the dataset tabletop, or environments[].told=true where a reset takes "
        "it; or, where it reports the outcomes of other instructions, view.outcomes_key=KEY and "
        "view.stop_on_success=false."
    )


def _plain(text: str) -> str:
    return " ".join(text.split()).rstrip(".").casefold()
