"""The reward that a policy learned from against another judge's word, e.g. the environment's on the same actions.

Two sources: `gymnast rescore RUN --all reward_model=environment` (every kept rollout, RUN/rescored/LABEL/results.jsonl)
and the audits of a training (its successes alone, RUN/judging/audit.jsonl).

Rollouts of a task share their start: where tasks repeat, as in every group, intervals are over tasks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gymnast_core.errors import DataError
from gymnast_core.reading import as_object, parse_json
from gymnast_core.statistics import success_interval
from gymnast_core.success import is_success
from gymnast_pages.charts import Chart, Point, Series


@dataclass(frozen=True)
class Both:
    """A rollout that both judged."""

    task: str
    rewarded: bool
    """Whether its reward is a success."""
    success: bool
    """Whether the other says so."""


@dataclass(frozen=True)
class Agreement:
    """Rollouts that both judged."""

    judge: str
    rollouts: Sequence[Both]

    @property
    def table(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """Numbers of rollouts: [reward is a success][the other says success]."""
        said = [(one.rewarded, one.success) for one in self.rollouts]
        failures, successes = ((said.count((first, False)), said.count((first, True))) for first in (False, True))
        return failures, successes

    @property
    def n(self) -> int:
        return len(self.rollouts)

    @property
    def tasks(self) -> int:
        """Their tasks."""
        return len({one.task for one in self.rollouts})

    @property
    def confirmed(self) -> tuple[float, tuple[float, float]] | None:
        """Share of rewarded rollouts that the other calls a success, with its 95 % interval."""
        return _share([(one.task, one.success) for one in self.rollouts if one.rewarded])

    @property
    def found(self) -> tuple[float, tuple[float, float]] | None:
        """Share of the other's successes that were rewarded."""
        return _share([(one.task, one.rewarded) for one in self.rollouts if one.success])


def agreements(run: Path) -> list[Agreement]:
    """One for each judge whose word there is. Raises `DataError`."""
    found = []
    for file in sorted((run / "rescored").glob("*/results.jsonl")):
        latest = {row.get("id"): row for row in _rows(file)}
        both = []
        for row in latest.values():
            first, second = row.get("first_value"), row.get("value")
            kinds = {row.get("first_kind", "success"), row.get("reward_kind", "success")}
            if isinstance(first, int | float) and isinstance(second, int | float) and kinds == {"success"}:
                both.append(Both(str(row.get("task", row.get("id"))), is_success(first), is_success(second)))
        if both:
            found.append(Agreement(file.parent.name, both))
    return found


def audit_chart(run: Path) -> Chart | None:
    """Which share of rewarded rollouts the audits confirmed, by iteration."""
    points = []
    for row in _rows(run / "judging" / "audit.jsonl"):
        n, denied, iteration = (row.get(name) for name in ("n", "denied", "iteration"))
        if isinstance(n, int) and isinstance(denied, int) and isinstance(iteration, int) and n > 0:
            low, high = success_interval([0.0] * denied + [1.0] * (n - denied), _starts(row, denied, n))
            points.append(Point(iteration, (n - denied) / n, low, high))
    if not points:
        return None
    series = [Series("confirmed, with 95 % interval", points, "dots")]
    return Chart("Rewarded rollouts that the auditor confirms", "confirmed", series, (0.0, 1.0), True)


def _starts(row: Mapping[str, Any], denied: int, n: int) -> list[str] | None:
    """The task of each audited rollout, the denied ones first; None of audits that did not write them down."""
    lists = [row.get("denied_tasks"), row.get("confirmed_tasks")]
    if not all(isinstance(one, list) for one in lists):
        return None
    tasks = [str(task) for one in lists for task in one or ()]
    return tasks if len(tasks) == n and len(lists[0] or ()) == denied else None


def _share(cases: Sequence[tuple[str, bool]]) -> tuple[float, tuple[float, float]] | None:
    """Of cases with their tasks."""
    if not cases:
        return None
    values = [float(case) for _, case in cases]
    return sum(values) / len(values), success_interval(values, [task for task, _ in cases])


def _rows(path: Path) -> Sequence[Mapping[str, Any]]:
    """Whole lines of a JSON Lines file."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n")[:-1]
    try:
        return [as_object(parse_json(line, str(path), allow_nan=True), str(path)).values for line in lines if line]
    except DataError as error:
        raise DataError(f"{error} Restore or delete that file, then rebuild.") from error
