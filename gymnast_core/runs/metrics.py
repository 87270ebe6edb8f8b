"""metrics.csv: a row a step, appended, so that a long run does not write its past again and again."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gymnast_core.errors import DataError
from gymnast_core.runs.atomic import append, write_text

FILE = "metrics.csv"


class MetricsFile:
    """The metrics of one run, written by one process."""

    def __init__(self, path: Path, done: int) -> None:
        """Continue the file at `path` after step `done`: rows of later steps, and one that was not finished, are
        dropped. Raises `DataError` if it is damaged."""
        self._path = path
        self._columns: list[str] = []
        rows = [row for row in read_metrics(path) if _step(row, path) <= done]
        if path.exists():
            self._rewrite(rows)

    def append(self, step: int, metrics: Mapping[str, float]) -> None:
        """Add a row. A metric that was never there before makes a column; only then is the file written anew."""
        row = {"step": step, **metrics}
        if not row.keys() <= set(self._columns):
            self._rewrite([*read_metrics(self._path), row])
            return
        append(self._path, _text(self._columns, [row]).encode())

    def _rewrite(self, rows: Sequence[Mapping[str, Any]]) -> None:
        self._columns = list(dict.fromkeys(key for row in rows for key in row))
        header = _text(self._columns, [dict(zip(self._columns, self._columns, strict=True))]) if self._columns else ""
        write_text(self._path, header + _text(self._columns, rows))


def read_metrics(path: Path) -> list[dict[str, str]]:
    """The rows of a metrics.csv as texts, without what is empty; none if there is no file.

    A last line without its end is left out: it is being written, or its writer was killed. Raises `DataError` for a
    file that is no such table.
    """
    if not path.exists():
        return []
    try:
        text = path.read_text(encoding="utf-8")
        whole = text[: text.rfind("\n") + 1]
        reader = csv.DictReader(io.StringIO(whole, newline=""), strict=True)
        rows = list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} cannot be read: {error}. Restore it, or move it away to go on without it.") from error
    for number, row in enumerate(rows, start=2):
        if None in row or None in row.values():
            raise DataError(f"{path}, line {number} has another number of columns. Restore it, or move it away.")
    return [{key: value for key, value in row.items() if value} for row in rows]


def _step(row: Mapping[str, str], path: Path) -> int:
    try:
        return int(row["step"])
    except (KeyError, ValueError):
        raise DataError(
            f"{path} has a row without its step. Restore it, or move it away to go on without it."
        ) from None


def _text(columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> str:
    text = io.StringIO(newline="")
    csv.DictWriter(text, columns, restval="").writerows(rows)
    return text.getvalue()
