"""RUN/spending.jsonl: what judges were paid for a run, written when it was paid.

Metrics and evaluations are what a run learned from: an iteration that was cut off has none, and of one that is repeated
the last attempt counts. Money is gone either way, so this file is only ever added to.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from gymnast_core.errors import DataError
from gymnast_core.money import total_usd
from gymnast_core.reading import as_record, parse_json
from gymnast_core.runs.atomic import append

FILE = "spending.jsonl"


@dataclass(frozen=True)
class Payment:
    """A row."""

    what: str
    """What was judged: "training", "evaluation", "audit" or "canary"."""
    step: int
    """Of the run."""
    usd: float | None
    """None: not known."""


def note(folder: Path, payment: Payment) -> None:
    """Add a payment, unless nothing was paid. Raises `StorageError`."""
    if payment.usd != 0:
        append(folder / FILE, (json.dumps(asdict(payment)) + "\n").encode())


def read_payments(folder: Path) -> list[Payment]:
    """All payments of a run; none if nothing was paid. Raises `DataError` if a whole line is none."""
    path = folder / FILE
    if not path.exists():
        return []
    found = []
    # What follows the last newline was being written when the process was killed.
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").split("\n")[:-1], start=1):
        place = f"{path}, line {number}"
        try:
            found.append(as_record(Payment, parse_json(line, place), place))
        except DataError as error:
            raise DataError(f"{error} Delete that line to go on without that payment.") from error
    return found


def spent_usd(folder: Path) -> float | None:
    """What a run has cost so far, over all its attempts; None if a part of that is not known."""
    return total_usd(payment.usd for payment in read_payments(folder))
