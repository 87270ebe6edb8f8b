"""What gates are told in the section hooks.gate: whom to believe, what is wanted, and what to do in a training."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from gymnast_core.config.ranges import Choices, Count, Fraction, Range, ZeroOrMore
from gymnast_core.config.schema import ComponentConfig


@dataclass(frozen=True)
class Config:
    """The section hooks.gate of a training's config; `gymnast gate` reads `by`, `precision` and `auditor` of it, e.g.

    gymnast train tabletop hooks.gate.every=1
    gymnast train tabletop hooks.gate.every=2 hooks.gate.rollouts=48 hooks.gate.recover=restore
    """

    every: ZeroOrMore = 0
    """Iterations from one audit to the next; the first is made in the first iteration. 0: none are made."""
    rollouts: Count = 48
    """Imagined rollouts of an audit whose actions are executed in the environment, one of each task draw as far as
    there are enough draws."""
    first_rollouts: Count = 256
    """The same of the first audit, with which later ones are compared."""
    by: Annotated[str, Choices("instruction", "family")] = "instruction"
    """What tasks are grouped by: their instruction, or their id up to its last slash."""
    precision: Annotated[float, Range(above=0, below=1)] = 0.7
    """Share of the judged successes that must be true ones, in each group of tasks."""
    drop: bool = True
    """Leave out groups of tasks whose precision is shown to be lower."""
    gap: Fraction = 0.1
    """By how much (0.1: 10 points) judged success may gain on the true success of the same rollouts since the first
    audit, before the training is stopped."""
    significance: Annotated[float, Range(above=0, below=1)] = 0.05
    """Probability of a false alarm of each test over a whole training, however many audits it has."""
    recover: Annotated[str, Choices("stop", "restore")] = "stop"
    """Which weights a stopped training ends with: those that it has then (stop), or those of its best audit (restore).
    The others are kept beside, in RUN/gate."""
    leave_out: list[str] = field(default_factory=list)
    """Groups of tasks that are left out from the beginning, e.g. those that `gymnast gate` names."""
    auditor: ComponentConfig | None = None
    """Reward model that is believed instead of the environment, for tasks without one: its word stands for the truth,
    and the result is called an audit."""
