"""Whether two runs' evaluations measured the same thing: one world, one judge, the same tasks, the same settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gymnast_core.runs.folder import same_value
from gymnast_core.runs.results import Evaluation, MeasuredWith
from gymnast_report.panel import flat

SETTINGS = ("temperature", "horizon", "seed")
"""Settings that must agree for two evaluations to be paired."""
PARTS = {"world": "another world", "reward_model": "another judge", "tasks": "other tasks"}
"""Components that must agree, by their keys in `MeasuredWith.parts`, and what it is called when they do not.

Tasks of one id are one task only if they are from one dataset: every recording counts its episodes from 0.
"""
MOST = 3
"""Arguments that a reason names."""


def incomparable(first: Evaluation | None, second: Evaluation | None, name: str) -> str:
    """Why the second evaluation is not compared with the first one, that of the run `name`; "" if it can be."""
    if first is None or second is None:
        return f"{name if first is None else 'it'} has no evaluation"
    for what, a, b in (
        ("world", first.world, second.world),
        ("judge", first.reward_model, second.reward_model),
        ("kind of reward", first.reward_kind, second.reward_kind),
        *((key, first.settings.get(key), second.settings.get(key)) for key in SETTINGS),
    ):
        if a != b:
            return f"another {what}: {b} instead of {a}"
    return _other_parts(first.measured_with, second.measured_with, name)


def _other_parts(first: MeasuredWith, second: MeasuredWith, name: str) -> str:
    free = [*first.free, *second.free]
    for key, what in PARTS.items():
        a, b = first.parts.get(key), second.parts.get(key)
        if a is None and b is None:
            continue
        if a is None or b is None:
            return f"maybe {what}: nothing says which evaluation.{key} {name if a is None else 'it'} was measured with"
        changes = _changes(key, a, b, free)
        if changes:
            rest = len(changes) - MOST
            return f"{what}: {'; '.join(changes[:MOST])}" + (f"; and {rest} more" if rest > 0 else "")
    return ""


def _changes(key: str, first: Mapping[str, Any], second: Mapping[str, Any], free: Sequence[str]) -> list[str]:
    """What differs between two components, as text. An empty mapping of arguments is none."""
    old, new = ({at: value for at, value in flat(part, key) if value != {}} for part in (first, second))
    keys = [at for at in dict.fromkeys([*old, *new]) if not any(at == one or at.startswith(f"{one}.") for one in free)]
    changed = [at for at in keys if not (at in old and at in new and same_value(old[at], new[at]))]
    return [f"evaluation.{at} is {new.get(at, 'not given')} instead of {old.get(at, 'not given')}" for at in changed]
