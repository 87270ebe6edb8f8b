"""Which rollouts each iteration learned from, and how much each of them weighed: RUN/groups.jsonl, a line an iteration.

What changes a policy by a clipped policy gradient is, to first order, the sum of |advantage| over the factors (tokens)
that count: a rollout's `influence`. It says which rollouts to look at; the ratio's clipping and the shape of the
policy decide the rest.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from gymnast_core.errors import DataError
from gymnast_core.learning import Learned
from gymnast_core.processes import Alone, Processes
from gymnast_core.reading import as_object, as_record, parse_json
from gymnast_core.runs.atomic import append, write_text
from gymnast_core.types import Reward, Rollout

FILE = "groups.jsonl"


@dataclass(frozen=True)
class GroupRow:
    """K rollouts of one task. Lists hold an entry a rollout."""

    label: int
    """Number of the group in the run."""
    task: str
    instruction: str
    values: list[float | None]
    """Rewards; None where the judge could not say."""
    learned: bool = True
    """Whether the iteration learned from it."""
    reason: str = ""
    """Why it did not."""
    advantages: list[float] = field(default_factory=list)
    """Mean over the actions that count; 0 where the rollout was not judged."""
    actions: list[int] = field(default_factory=list)
    """Actions that count: those after the first success that the judge saw are masked."""
    tokens: list[int] = field(default_factory=list)
    """Factors of these actions."""
    influence: list[float] = field(default_factory=list)
    """Sum of |advantage| over those tokens."""


@dataclass(frozen=True)
class IterationRow:
    """One line of the file."""

    iteration: int
    horizon: int
    """Actions of a rollout."""
    groups: list[GroupRow]

    @property
    def total(self) -> float:
        """Influence of all its rollouts."""
        return sum(sum(group.influence) for group in self.groups)


@dataclass(frozen=True)
class Seen:
    """A group that was judged, before it is known whether it will be learned from."""

    task: str
    instruction: str
    values: list[float | None]


class GroupRecord:
    """One process's part in the file of one run, which the leader writes."""

    def __init__(self, folder: Path, processes: Processes | None = None) -> None:
        """`processes` share the run; None: this one is alone."""
        self._path, self._processes = folder / FILE, processes or Alone()
        self._seen: dict[int, Seen] = {}

    def judged(self, rollouts: Sequence[Rollout], rewards: Sequence[Reward]) -> None:
        """Groups of this process were judged."""
        for rollout, reward in zip(rollouts, rewards, strict=True):
            new = Seen(rollout.task.id, rollout.task.instruction, [])
            self._seen.setdefault(rollout.group, new).values.append(reward.value)

    def done(self, iteration: int, learned: Learned | None) -> IterationRow | None:
        """Write the line of an iteration, which holds the groups of all processes: each must call this. None where none
        of them judged anything. Numbers and words travel, frames do not."""
        horizon, mine, failed = 0, list[GroupRow](), None
        try:
            mine = self._groups(learned)
            horizon = learned.judged.mask_BS.shape[1] if learned is not None else 0
        except Exception as error:  # the others wait for this process, whatever happens in it
            failed = error
        told = self._processes.gather((horizon, mine))
        if failed is not None:
            raise failed
        groups = [group for _, theirs in told for group in theirs]
        if not groups:
            return None
        # Those that were learned from come first, whoever has them.
        groups.sort(key=lambda group: not group.learned)
        row = IterationRow(iteration, max(horizon for horizon, _ in told), groups)
        if self._processes.leads:
            append(self._path, _line(row).encode())
        return row

    def _groups(self, learned: Learned | None) -> list[GroupRow]:
        """Those of this process, which it then forgets."""
        rows = [] if learned is None else learned_groups(learned)
        taken = {row.label for row in rows}
        dropped = [
            GroupRow(label, seen.task, seen.instruction, seen.values, learned=False, reason=_reason(seen.values))
            for label, seen in self._seen.items()
            if label not in taken
        ]
        self._seen = {}
        return rows + dropped


def forget_later(folder: Path, done: int) -> None:
    """A run goes on after `done` iterations: drop the rows of later ones. Raises `DataError` if the file is damaged."""
    if (folder / FILE).exists():
        kept = [row for row in read_groups(folder) if row.iteration <= done]
        write_text(folder / FILE, "".join(_line(row) for row in kept))


def learned_groups(learned: Learned) -> list[GroupRow]:
    """What an update was given, group by group."""
    judged, size = learned.judged, learned.judged.group_size
    mask_BS = judged.mask_BS & judged.valid_GK.reshape(-1, 1)
    advantages_BS = learned.advantages.advantages_BS.detach().float().cpu() * mask_BS
    counts = mask_BS.sum(dim=1).tolist()
    sums, sizes = advantages_BS.sum(dim=1).tolist(), advantages_BS.abs().sum(dim=1).tolist()
    rows = []
    for first in range(0, len(judged.rollouts), size):
        places = range(first, first + size)
        rollouts = judged.rollouts[first : first + size]
        factors = [rollout.log_prob_NLD.shape[-1] for rollout in rollouts]
        rows.append(
            GroupRow(
                label=rollouts[0].group,
                task=rollouts[0].task.id,
                instruction=rollouts[0].task.instruction,
                values=[judged.rewards[place].value for place in places],
                advantages=[round(sums[place] / max(counts[place], 1), 5) for place in places],
                actions=[int(counts[place]) for place in places],
                tokens=[int(counts[place]) * factor for place, factor in zip(places, factors, strict=True)],
                influence=[round(sizes[place] * factor, 4) for place, factor in zip(places, factors, strict=True)],
            )
        )
    return rows


def read_groups(folder: Path) -> list[IterationRow]:
    """The lines of a run; none where it keeps no such file. A line that is being written is left out. Raises
    `DataError`."""
    path = folder / FILE
    if not path.exists():
        return []
    try:
        return [_row(line, f"{path}, line {number}") for number, line in enumerate(_lines(path), start=1)]
    except DataError as error:
        raise DataError(f"{error} Delete that file; the page goes without it.") from error


@dataclass(frozen=True)
class Weighty:
    """One rollout that weighed much."""

    iteration: int
    group: GroupRow
    place: int
    """In its group, from 0."""
    share: float
    """Of its iteration's influence."""


def weightiest(rows: Sequence[IterationRow], most: int = 10) -> list[Weighty]:
    """The rollouts with the largest share of their iteration's influence."""
    found = sorted(_weighed(rows), key=lambda one: one.share, reverse=True)
    return found[:most]


def _weighed(rows: Sequence[IterationRow]) -> Iterator[Weighty]:
    for row in rows:
        total = row.total
        for group in row.groups if total > 0 else ():
            for place, influence in enumerate(group.influence):
                if influence > 0:
                    yield Weighty(row.iteration, group, place, influence / total)


def _reason(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return "could not be judged"
    if len(set(known)) == 1:
        return "all rewards alike: nothing to prefer"
    if len(known) < len(values):
        return "not all of it could be judged"
    return "left out by the algorithm, or waits for its turn"


def _lines(path: Path) -> list[str]:
    """Whole lines: one without its end is being written, or its writer was killed."""
    try:
        return path.read_text(encoding="utf-8").split("\n")[:-1]
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8: {error}.") from error


def _row(line: str, place: str) -> IterationRow:
    found = as_object(parse_json(line, place), place)
    groups = [as_record(GroupRow, group.values, place) for group in found.objects("groups")]
    for group in groups:
        parts = (group.advantages, group.actions, group.tokens, group.influence)
        if any(len(part) != len(group.values) * group.learned for part in parts):
            raise DataError(f"{place}: the lists of group {group.label} have different lengths.")
    return IterationRow(found.integer("iteration"), found.integer("horizon"), groups)


def _line(row: IterationRow) -> str:
    return json.dumps(asdict(row), ensure_ascii=False, separators=(",", ":")) + "\n"
