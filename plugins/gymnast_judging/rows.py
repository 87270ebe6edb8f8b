"""Rows of dataclasses in a JSONL file that is only ever appended to; what a killed process left torn is dropped."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Generic, TypeVar

from gymnast_core.errors import DataError
from gymnast_core.reading import as_object, parse_json
from gymnast_core.runs.atomic import append, write_text

Row = TypeVar("Row")


class RowFile(Generic[Row]):
    """The rows of a file, in order, and a way to add more."""

    def __init__(self, path: Path, schema: type[Row]) -> None:
        """Raises `DataError` if a whole line of the file is no such row."""
        self.path = path
        text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
        # What follows the last newline was being written when the process was killed.
        whole, newline, torn = text.rpartition("\n")
        self.rows = [self._row(schema, number, line) for number, line in enumerate(whole.split("\n"), 1) if line]
        if torn:
            write_text(path, whole + newline)

    def append(self, rows: Sequence[Row]) -> None:
        """Add rows and make sure that they are on the disk. Raises `StorageError`."""
        append(self.path, _lines(rows).encode())
        self.rows += rows

    def replace(self, rows: Sequence[Row]) -> None:
        """Make these the file's only rows."""
        write_text(self.path, _lines(rows))
        self.rows = list(rows)

    def _row(self, schema: type[Row], number: int, line: str) -> Row:
        try:
            return schema(**as_object(parse_json(line, f"{self.path}, line {number}"), f"line {number}").values)
        except (DataError, TypeError) as error:
            raise DataError(
                f"{self.path}, line {number} is no {schema.__name__} ({error}). Delete that line to go on without it."
            ) from error


def _lines(rows: Sequence[Any]) -> str:
    text = "".join(json.dumps(asdict(row), ensure_ascii=False) + "\n" for row in rows)
    # Half a letter, as foreign judges may say it, becomes the escape that JSON has for it.
    return text.encode("utf-8", "backslashreplace").decode()
