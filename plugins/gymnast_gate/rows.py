"""What is known of each measured task: the rows of a gate's folder, kept batch by batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from gymnast_core.errors import DataError
from gymnast_core.reading import as_record, read_object
from gymnast_core.runs.atomic import write_json


@dataclass(frozen=True)
class Row:
    """One task, and what became of it."""

    index: int
    """Place among the measured rollouts."""
    task: str
    instruction: str
    group: str
    """The group of tasks that it belongs to."""
    real: bool | None = None
    """Success of the policy in the environment; None where that was not measured."""
    judged: bool | None = None
    """What the run's judge says of the policy's imagined rollout; None where it could not judge."""
    probability: float | None = None
    """The graded score behind that, where the judge tells one."""
    true: bool | None = None
    """Success of the imagined rollout's actions in the environment, or by the auditor."""
    errors: list[str] = field(default_factory=list)
    cost_usd: float | None = 0.0
    pixels: dict[str, list[float]] | None = None
    """Squared errors by frame (`pixels.errors_of`)."""
    strips: dict[str, str] = field(default_factory=dict)
    """What film strips of it show -> the file."""


class Batches:
    """FOLDER/batches: one file a batch, whole or absent."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def read(self, number: int) -> tuple[list[Row], Mapping[str, Any]] | None:
        """The rows of a batch, and where the order of tasks was after it; None if it is not done. `DataError` if the
        file is damaged."""
        path = self._path(number)
        if not path.exists():
            return None
        content = read_object(path)
        rows = [as_record(Row, row.values, str(path)) for row in content.objects("rows")]
        if not rows:
            raise DataError(f"{path} holds no rows. Delete it to measure that batch again.")
        return rows, content.object("order").values

    def write(self, number: int, rows: Sequence[Row], order: Mapping[str, Any]) -> None:
        write_json(self._path(number), {"order": order, "rows": [asdict(row) for row in rows]})

    def _path(self, number: int) -> Path:
        return self._folder / "batches" / f"{number:06d}.json"
