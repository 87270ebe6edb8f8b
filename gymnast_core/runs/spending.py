"""RUN/spending.jsonl: what judges, and editors of a probe, were paid for a run, written when it was paid.

Metrics and evaluations are what a run learned from: an iteration that was cut off has none, and of one that is repeated
the last attempt counts. Money is gone either way, so this file is only ever added to.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from gymnast_core.errors import DataError
from gymnast_core.money import total_usd
from gymnast_core.reading import as_record, parse_json
from gymnast_core.runs.atomic import append, storing

FILE = "spending.jsonl"


@dataclass(frozen=True)
class Payment:
    """A row."""

    what: str
    """What was judged: "training", "evaluation", "audit", "canary" or "probe"; "edit": a probe's edit was made."""
    step: int
    """Of the run; of a probe, the number of the trial, or of the batch's first."""
    usd: float | None
    """None: not known."""


def note(folder: Path, payment: Payment) -> None:
    """Add a payment, unless nothing was paid; one process writes. Raises `StorageError`."""
    if payment.usd == 0:
        return
    path = folder / FILE
    with storing(path):
        _drop_beginning(path)
    append(path, (json.dumps(asdict(payment)) + "\n").encode())


class Spending:
    """What a run has cost so far, over all its attempts; each payment is read once, however often that is asked."""

    def __init__(self, folder: Path) -> None:
        self._path, self._read, self._lines = folder / FILE, 0, 0
        self.payments: list[Payment] = []
        """Those that `usd` has seen."""
        self._usd: float | None = 0.0

    def usd(self) -> float | None:
        """None if a part of it is not known. Raises `DataError` if a whole line is no payment."""
        new = self._new()
        self.payments += new
        self._usd = total_usd((self._usd, *(payment.usd for payment in new)))
        return self._usd

    def _new(self) -> list[Payment]:
        if not self._path.exists():
            return []
        with self._path.open("rb") as file:
            file.seek(self._read)
            text = file.read()
        # What follows the last newline is being written, or was when its process was killed.
        whole = text[: text.rfind(b"\n") + 1]
        found = [self._parsed(line, self._lines + at) for at, line in enumerate(whole.split(b"\n")[:-1], start=1)]
        self._read += len(whole)
        self._lines += len(found)
        return found

    def _parsed(self, line: bytes, number: int) -> Payment:
        place = f"{self._path}, line {number}"
        try:
            return as_record(Payment, parse_json(line, place), place)
        except DataError as error:
            raise DataError(f"{error} Delete that line to go on without that payment.") from error


def read_payments(folder: Path) -> list[Payment]:
    """All payments of a run; none if nothing was paid. Raises `DataError` as `Spending.usd` does."""
    spending = Spending(folder)
    spending.usd()
    return spending.payments


def spent_usd(folder: Path) -> float | None:
    """What a run has cost; errors as of `Spending.usd`."""
    return Spending(folder).usd()


def _drop_beginning(path: Path) -> None:
    """Take away a last line without its end: its writer was killed, and what comes next must not be read with it."""
    if not path.exists():
        return
    with path.open("r+b") as file:
        if not file.seek(0, os.SEEK_END):
            return
        file.seek(-1, os.SEEK_END)
        if file.read() != b"\n":
            file.seek(0)
            file.truncate(file.read().rfind(b"\n") + 1)
