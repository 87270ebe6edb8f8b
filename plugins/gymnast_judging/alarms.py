"""When rewards stop meaning anything: what the latest judgements of a training look like, and the alarms they raise."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gymnast_core.errors import DataError
from gymnast_core.plugins.events import RewardsScored
from gymnast_judging.rows import RowFile
from gymnast_judging.votes import pair_agreement

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Finding:
    """Something wrong with the rewards."""

    kind: str
    """"constant", "disagreement", "canary-blind", "canary-drift" or "audit"."""
    message: str
    numbers: dict[str, float]


@dataclass(frozen=True)
class Alarm:
    """A row of alarms.jsonl."""

    iteration: int
    """From 1; 0 is before training."""
    kind: str
    event: str
    """"raised" or "cleared"."""
    message: str
    numbers: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Entry:
    """What an alarm looks at of one judged rollout."""

    group: int
    """Label of its group: the order of rollouts, however many processes share them."""
    value: float | None
    agreement: float | None
    """Share of agreeing pairs of votes; None where fewer than two are known."""


def entries_of(event: RewardsScored) -> list[Entry]:
    """Of the process's own rollouts; errors that tell of no votes say nothing about agreement and are left out."""
    entries = []
    for rollout, reward in zip(event.rollouts, event.rewards, strict=True):
        agreement = pair_agreement(reward.votes) if len(reward.votes) > 1 else None
        if reward.value is not None or agreement is not None:
            entries.append(Entry(rollout.group, reward.value, agreement))
    return entries


class Window:
    """The latest `size` judged rollouts of a training."""

    def __init__(self, size: int, max_disagreement: float, *, judges_success: bool = True) -> None:
        """`judges_success` says that the rewards are success in [0, 1]."""
        self._size, self._max_disagreement, self._judges_success = size, max_disagreement, judges_success
        # Each entry: iteration, value, share of agreeing pairs of votes.
        self.entries: deque[tuple[int, float | None, float | None]] = deque(maxlen=size)

    def add(self, iteration: int, entries: Iterable[Entry]) -> None:
        """What was judged in an iteration."""
        self.entries.extend((iteration, entry.value, entry.agreement) for entry in entries)

    @property
    def is_full(self) -> bool:
        return len(self.entries) == self._size

    def findings(self) -> list[Finding]:
        """What is wrong with the judgements in a full window; nothing is known before."""
        if not self.is_full:
            return []
        return [found for found in (self._constant(), self._disagreement()) if found is not None]

    def _constant(self) -> Finding | None:
        values = {value for _, value, _ in self.entries if value is not None}
        count = sum(value is not None for _, value, _ in self.entries)
        # Ties leave no value: a window of few values has shown too little.
        if len(values) != 1 or count < self._size / 2:
            return None
        (value,) = values
        known = {
            0.0: "The policy never succeeds, or the judge never sees it.",
            1.0: "The policy always succeeds, or it has found what the judge mistakes for success.",
        }
        meaning = known.get(value) if self._judges_success else None
        meaning = meaning or "A judge that never differs tells nothing."
        return Finding(
            "constant",
            f"The last {count} judged rollouts all got the reward {value:g}, so nothing can be learned from them. "
            f"{meaning} Look at their videos in report.html, and measure the judge: gymnast judge.",
            {"value": value, "rollouts": count},
        )

    def _disagreement(self) -> Finding | None:
        shares = [1 - agreement for _, _, agreement in self.entries if agreement is not None]
        if len(shares) < self._size / 2:
            return None
        mean = sum(shares) / len(shares)
        if mean <= self._max_disagreement:
            return None
        return Finding(
            "disagreement",
            f"Votes on the last {len(shares)} rollouts contradict each other in {100 * mean:.0f} % of pairs (limit "
            f"{100 * self._max_disagreement:.0f} %; coin tosses: 50 %). Their majority is mostly noise. Measure the "
            "judge with gymnast judge; try another prompt, more or larger frames, or another model.",
            {"disagreement": mean, "rollouts": len(shares)},
        )


class AlarmFile:
    """RUN/alarms.jsonl: when each alarm was raised and when it ended; rows after iteration `done` are dropped."""

    def __init__(self, folder: Path, done: int) -> None:
        self._file = RowFile(folder / "alarms.jsonl", Alarm)
        kept = [row for row in self._file.rows if row.iteration <= done]
        if len(kept) < len(self._file.rows):
            self._file.replace(kept)
        self.active: set[str] = set()
        for row in kept:  # in order: an alarm may have ended and begun again
            (self.active.add if row.event == "raised" else self.active.discard)(row.kind)

    def update(self, iteration: int, findings: Sequence[Finding], watched: Sequence[str]) -> None:
        """Say once when something begins; of the `watched` kinds, also that it has ended."""
        found = {finding.kind for finding in findings}
        rows = [
            Alarm(iteration, finding.kind, "raised", finding.message, finding.numbers)
            for finding in findings
            if finding.kind not in self.active
        ]
        for row in rows:
            log.warning("ALARM (%s, iteration %d): %s", row.kind, iteration, row.message)
        ended = sorted(self.active.intersection(watched) - found)
        for kind in ended:
            log.warning("The alarm %r has ended in iteration %d.", kind, iteration)
        rows += [Alarm(iteration, kind, "cleared", f"The alarm {kind!r} has ended.") for kind in ended]
        if rows:
            self._file.append(rows)
        self.active = (self.active - set(ended)) | found


def entries_to_json(window: Window) -> list[list[Any]]:
    """For the run folder; `entries_from_json` restores them."""
    return [list(entry) for entry in window.entries]


def entries_from_json(window: Window, entries: Sequence[Sequence[Any]], done: int) -> None:
    """Refill a window with what it held after iteration `done`, as far as that is known."""
    try:
        known = [(int(entry[0]), _number(entry[1]), _number(entry[2])) for entry in entries if entry[0] <= done]
    except (TypeError, ValueError, IndexError, KeyError) as error:
        raise DataError(
            f"judging/window.json of the run is damaged ({error!r}). Delete it to go on without it."
        ) from error
    window.entries.extend(known)


def _number(value: Any) -> float | None:
    return None if value is None else float(value)
