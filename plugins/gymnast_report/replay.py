"""The reward that a policy learned from against another judge's word, e.g. the environment's on the same actions.

Two sources: `gymnast rescore RUN --all reward_model=environment` (every kept rollout, RUN/rescored/LABEL/results.jsonl)
and the audits of a training (its successes alone, RUN/judging/audit.jsonl).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gymnast_core.errors import DataError
from gymnast_core.reading import as_object, parse_json
from gymnast_core.statistics import wilson_interval
from gymnast_pages.charts import Chart, Point, Series


@dataclass(frozen=True)
class Agreement:
    """Rollouts that both judged, by what they said: [reward is a success][the other says success]."""

    judge: str
    table: tuple[tuple[int, int], tuple[int, int]]

    @property
    def n(self) -> int:
        return sum(map(sum, self.table))

    @property
    def confirmed(self) -> tuple[float, tuple[float, float]] | None:
        """Share of rewarded rollouts that the other calls a success, with its 95 % interval."""
        return _share(self.table[1][1], sum(self.table[1]))

    @property
    def found(self) -> tuple[float, tuple[float, float]] | None:
        """Share of the other's successes that were rewarded."""
        return _share(self.table[1][1], self.table[0][1] + self.table[1][1])


def agreements(run: Path) -> list[Agreement]:
    """One for each judge whose word there is. Raises `DataError`."""
    found = []
    for file in sorted((run / "rescored").glob("*/results.jsonl")):
        latest = {row.get("id"): row for row in _rows(file)}
        table = [[0, 0], [0, 0]]
        for row in latest.values():
            first, second = row.get("first_value"), row.get("value")
            kinds = {row.get("first_kind", "success"), row.get("reward_kind", "success")}
            if isinstance(first, int | float) and isinstance(second, int | float) and kinds == {"success"}:
                table[first > 0.5][second > 0.5] += 1
        if sum(map(sum, table)):
            found.append(Agreement(file.parent.name, ((table[0][0], table[0][1]), (table[1][0], table[1][1]))))
    return found


def audit_chart(run: Path) -> Chart | None:
    """Which share of rewarded rollouts the audits confirmed, by iteration."""
    points = []
    for row in _rows(run / "judging" / "audit.jsonl"):
        n, denied, iteration = (row.get(name) for name in ("n", "denied", "iteration"))
        if isinstance(n, int) and isinstance(denied, int) and isinstance(iteration, int) and n > 0:
            low, high = wilson_interval(n - denied, n)
            points.append(Point(iteration, (n - denied) / n, low, high))
    if not points:
        return None
    series = [Series("confirmed, with 95 % interval", points, "dots")]
    return Chart("Rewarded rollouts that the auditor confirms", "confirmed", series, (0.0, 1.0), True)


def _share(part: int, whole: int) -> tuple[float, tuple[float, float]] | None:
    return (part / whole, wilson_interval(part, whole)) if whole else None


def _rows(path: Path) -> Sequence[Mapping[str, Any]]:
    """Whole lines of a JSON Lines file."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n")[:-1]
    try:
        return [as_object(parse_json(line, str(path), allow_nan=True), str(path)).values for line in lines if line]
    except DataError as error:
        raise DataError(f"{error} Restore or delete that file, then rebuild.") from error
