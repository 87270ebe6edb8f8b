"""What the audits of a training found, and what follows from it. Everything here is a function of the audits' rows."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from gymnast_core.errors import DataError
from gymnast_core.reading import as_object, as_record, parse_json
from gymnast_core.runs.atomic import storing, write_text
from gymnast_core.statistics import success_interval
from gymnast_gate.options import Config
from gymnast_gate.sequential import evidence, lower_bound, upper_bound


@dataclass(frozen=True)
class Seen:
    """One rollout of an audit."""

    label: int
    """Its task draw, over the whole run; rollouts of one draw share their start."""
    group: str
    """Of its task."""
    judged: bool
    true: bool


@dataclass(frozen=True)
class Audit:
    """A row of RUN/gate/audits.jsonl."""

    iteration: int
    """From 1: the iteration whose rollouts these are. The policy that acted had the updates of those before."""
    seen: list[Seen]
    unknown: int
    """Rollouts of which nobody could say what is true."""
    seconds: float
    cost_usd: float | None
    truth: str
    """Who was believed."""

    @property
    def judged(self) -> float:
        """Judged success."""
        return sum(one.judged for one in self.seen) / len(self.seen)

    @property
    def true(self) -> float:
        """True success of the same rollouts."""
        return sum(one.true for one in self.seen) / len(self.seen)

    @property
    def precision(self) -> float | None:
        said = [one.true for one in self.seen if one.judged]
        return sum(said) / len(said) if said else None

    @property
    def surely(self) -> float:
        """What true success is at least, by its 95 % interval over task draws: few rollouts, or few starts, make no
        policy the best."""
        return success_interval([float(one.true) for one in self.seen], [one.label for one in self.seen])[0]


class AuditFile:
    """The audits of one run; those after its first `done` iterations are dropped, since a resumed run repeats them."""

    def __init__(self, path: Path, done: int) -> None:
        """Raises `DataError` if a whole line is no audit."""
        self._path = path
        text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
        # What follows the last newline was being written when the process was killed.
        lines = text.split("\n")[:-1]
        every = [self._read(line, number) for number, line in enumerate(lines, start=1)]
        self.rows = [row for row in every if row.iteration <= done]
        if text and (len(self.rows) < len(every) or not text.endswith("\n")):
            write_text(path, "".join(_line(row) for row in self.rows))

    def append(self, row: Audit, *, write: bool) -> None:
        """Add an audit; of several processes, one writes."""
        self.rows.append(row)
        if not write:
            return
        with storing(self._path):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("a", encoding="utf-8") as file:
                file.write(_line(row))
                file.flush()
                os.fsync(file.fileno())

    def _read(self, line: str, number: int) -> Audit:
        place = f"{self._path}, line {number}"
        try:
            row = as_object(parse_json(line, place), place)
            seen = [as_record(Seen, one.values, place) for one in row.objects("seen")]
            if not seen:
                row.refuse("seen", "is empty")
            return Audit(
                row.integer("iteration"), seen, row.integer("unknown"), row.number("seconds"),
                row.number("cost_usd", default=None), row.text("truth"),
            )  # fmt: skip
        except DataError as error:
            raise DataError(f"{error} Delete that line to go on without that audit.") from error


@dataclass(frozen=True)
class Conclusion:
    """What follows from the audits so far."""

    leave_out: tuple[str, ...] = ()
    """Groups of tasks whose precision is shown to be below the wanted one."""
    stop: str | None = None
    """Why the training must not go on."""


def conclude(audits: Sequence[Audit], options: Config, left_out: Sequence[str]) -> Conclusion:
    """What the latest audit, and those before, say of groups that are not `left_out` yet.

    Three tests, each of which raises a false alarm with probability `options.significance` at most over a whole
    training (`sequential`): of each group's precision, of the precision over all tasks that are still drawn, and of how
    far judged and true success went apart since the first audit.
    """
    wanted, alarm = options.precision, 1.0 / options.significance
    names = sorted({one.group for audit in audits for one in audit.seen} - set(left_out))
    dropped = [name for name in names if evidence(_wrong(audits, [name], wanted), 1.0 - wanted) >= alarm]
    if not options.drop:
        dropped = []
    left = [name for name in names if name not in dropped]
    if not left or evidence(_wrong(audits, left, wanted), 1.0 - wanted) >= alarm:
        said, right = _counts(audits, left or names)
        where = "and the tasks that are still drawn" if left else "in every group of tasks that is still drawn"
        return Conclusion(
            tuple(dropped),
            f"The judge is wrong too often: {right} of the {said} rollouts that it called a success are one, over all "
            f"audits {where}; hooks.gate.precision={wanted:g} was wanted. Learning from it teaches its mistakes.",
        )
    return Conclusion(tuple(dropped), parted(audits, options))


def parted(audits: Sequence[Audit], options: Config) -> str | None:
    """How imagination and reality went apart since the first audit; None as long as that is not shown.

    The first audit's own uncertainty takes half of the probability of a false alarm: its bound at that level stands for
    what was there at first.
    """
    if len(audits) < 2:
        return None
    error, first, last = options.significance / 2, audits[0], audits[-1]
    lag = upper_bound(_lags(first), error) + options.gap / 2
    lags = lag < 1.0 and evidence([_lags(audit) for audit in audits[1:]], lag) >= 1.0 / error
    success = lower_bound([1.0 - value for value in _failures(first)], error)
    falls = success > 0 and evidence([_failures(audit) for audit in audits[1:]], 1.0 - success) >= 1.0 / error
    if not lags and not (falls and last.judged >= first.judged):
        return None
    what = "lags behind" if lags else "falls"
    return (
        f"Imagination and reality part: judged success went from {first.judged:.0%} in iteration {first.iteration} to "
        f"{last.judged:.0%} in iteration {last.iteration}, and the true success of the same rollouts {what}, from "
        f"{first.true:.0%} to {last.true:.0%} (hooks.gate.gap={options.gap:g}). The policy learns what judge and world "
        "model get wrong."
    )


def best_of(audits: Sequence[Audit]) -> Audit:
    """The audit whose policy's true success is surely the highest; of equal ones the first."""
    return max(audits, key=lambda audit: (audit.surely, -audit.iteration))


def _wrong(audits: Sequence[Audit], groups: Sequence[str], precision: float) -> list[list[float]]:
    """For each audit and task draw, the mean over its rollouts of 1 for a judged success that is none, 0 for one that
    is, and what is allowed for a judged failure, which says nothing: the expectation exceeds 1 - precision just where
    fewer than the share `precision` of all judged successes are true."""
    allowed = 1.0 - precision
    return [
        _by_draw(
            [(one.label, 1.0 - one.true if one.judged else allowed) for one in audit.seen if one.group in groups]
        )
        for audit in audits
    ]  # fmt: skip


def _lags(audit: Audit) -> list[float]:
    """For each task draw, judged less true success, from [-1, 1] to [0, 1]."""
    return _by_draw([(one.label, (float(one.judged) - float(one.true) + 1.0) / 2.0) for one in audit.seen])


def _failures(audit: Audit) -> list[float]:
    """For each task draw, the share of rollouts that truly fail."""
    return _by_draw([(one.label, 1.0 - one.true) for one in audit.seen])


def _by_draw(values: Sequence[tuple[int, float]]) -> list[float]:
    """The mean of each draw: its rollouts are one case, since they share their start."""
    found: dict[int, list[float]] = {}
    for label, value in values:
        found.setdefault(label, []).append(value)
    return [sum(mine) / len(mine) for _, mine in sorted(found.items())]


def _counts(audits: Sequence[Audit], groups: Sequence[str]) -> tuple[int, int]:
    said = [one for audit in audits for one in audit.seen if one.judged and one.group in groups]
    return len(said), sum(one.true for one in said)


def _line(row: Audit) -> str:
    return json.dumps(asdict(row), ensure_ascii=False) + "\n"
