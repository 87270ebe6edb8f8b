"""The rows of results.jsonl: one judged rollout each, written batch by batch, whole or not at all."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from gymnast_core.errors import DataError
from gymnast_core.reading import as_record, parse_json
from gymnast_core.runs.atomic import append, write_text


@dataclass(frozen=True)
class Trial:
    """One rollout of a policy in a world, and its judgement."""

    policy: str
    world: str
    index: int
    """Number of the trial among those of a policy in a world; the same number is the same task and seed everywhere."""
    task: str
    instruction: str
    trial: int
    """0, 1, ... of the rollouts of this task."""
    seed: int
    """Of the evaluation; the noise of a batch is drawn from this and `batch`."""
    batch: int
    """Index of the first trial of the batch that it was rolled out in."""
    value: float | None
    """Success in [0, 1], or a score (see `kind`); None when unscored."""
    partial: float | None
    """Partial credit in [0, 1], where the judge gives any."""
    outcome: float | None
    """What the world itself says, where it knows (simulators)."""
    error: str | None
    """Why it could not be judged."""
    rationale: str
    cost_usd: float | None
    kind: str = "success"
    """The reward model's kind: "success" or "score"."""
    applies: bool = True
    """False: what was asked makes no sense there, as `error` says; neither a success nor a failure of anybody."""


class TrialFile:
    """results.jsonl: appended to, batch by batch. A batch that a killed process left incomplete is dropped."""

    def __init__(self, path: Path, sizes: dict[int, int]) -> None:
        """`sizes` maps each batch to its number of trials."""
        self.path = path
        rows = list(_whole_lines(path))
        counts = Counter((row.policy, row.world, row.batch) for row in rows)
        self.trials = [row for row in rows if counts[row.policy, row.world, row.batch] == sizes.get(row.batch)]
        self._done = {(row.policy, row.world, row.batch) for row in self.trials}
        write_text(path, _lines(self.trials))

    def holds(self, policy: str, world: str, batch: int) -> bool:
        return (policy, world, batch) in self._done

    def of(self, policy: str, world: str) -> list[Trial]:
        return [row for row in self.trials if (row.policy, row.world) == (policy, world)]

    def append(self, batch: Sequence[Trial]) -> None:
        """Add a complete batch and make sure that it is on the disk. Raises `StorageError`."""
        append(self.path, _lines(batch).encode())
        self.trials += batch
        self._done |= {(row.policy, row.world, row.batch) for row in batch}


def read_trials(path: Path) -> list[Trial]:
    """Every row of a results.jsonl. Raises `DataError` if there is none or if it is damaged."""
    if not path.exists():
        raise DataError(f"{path.parent} holds no {path.name}. Give a folder that `gymnast evaluate` wrote.")
    return list(_whole_lines(path))


def _lines(trials: Iterable[Trial]) -> str:
    return "".join(json.dumps(asdict(trial), ensure_ascii=False) + "\n" for trial in trials)


def _whole_lines(path: Path) -> Iterable[Trial]:
    if not path.exists():
        return
    text = path.read_text(encoding="utf-8", errors="replace")
    # What follows the last newline was being written when the process was killed.
    for number, line in enumerate(text.split("\n")[:-1], start=1):
        place = f"{path}, line {number}"
        try:
            yield as_record(Trial, parse_json(line, place, allow_nan=True), place)
        except DataError as error:
            raise DataError(f"{error} Delete that line to roll its batch out again.") from error
