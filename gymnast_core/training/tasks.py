"""Which tasks come next: every pass over the dataset in an order of its own, without those that were left out."""

import logging
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch

from gymnast_core.errors import ConfigError, GymnastError, unknown_name
from gymnast_core.seeds import seeded_generator
from gymnast_core.types import Task

logger = logging.getLogger(__name__)
FAMILIES = ("instruction", "family")
"""What tasks can be grouped by."""


class NothingLeft(GymnastError):
    """Every task was left out."""


def family_of(task: Task, by: str) -> str:
    """What a task has in common with others: its instruction; or, `by` "family", its id up to the last slash
    ("door-open/17" is of "door-open"). Raises `ConfigError` for anything else to group by."""
    if by == "instruction":
        return task.instruction
    if by == "family":
        return task.id.rpartition("/")[0] or task.id
    raise ConfigError(unknown_name("grouping of tasks", by, FAMILIES))


class TaskOrder:
    """Draws tasks without end. The order of each pass is a function of the seed and the pass alone; what is left out is
    passed over."""

    def __init__(self, tasks: Sequence[Task], seed: int) -> None:
        self._tasks, self._seed = tasks, seed
        self._drawn = self._position = 0
        self._pass: tuple[int, list[int]] = (-1, [])
        self._left_out: dict[str, set[str]] = {}
        self._unmet: dict[tuple[str, str], int] = {}
        """Families (by, name) that are left out and of which no task was met since: the pass in which that was said."""

    @property
    def drawn(self) -> int:
        """Tasks drawn so far, over the whole run; the number of the next one."""
        return self._drawn

    @property
    def left_out(self) -> dict[str, list[str]]:
        """The families that are drawn no more, by what tasks were grouped by."""
        return {by: sorted(names) for by, names in self._left_out.items()}

    def leave_out(self, families: Mapping[str, Collection[str]]) -> None:
        """Draw no more tasks of these families, e.g. {"instruction": ["open the drawer"]}."""
        for by, names in families.items():
            if by not in FAMILIES:
                raise ConfigError(unknown_name("grouping of tasks", by, FAMILIES))
            new = set(names) - self._left_out.get(by, set())
            if new:
                self._left_out.setdefault(by, set()).update(new)
                self._unmet |= {(by, name): self._pass[0] for name in new}

    def leaves_out(self, task: Task) -> bool:
        """Whether a task is of a family that is drawn no more."""
        found = False
        for by, names in self._left_out.items():
            family = family_of(task, by)
            found |= family in names
            self._unmet.pop((by, family), None)
        return found

    def draw(self, count: int) -> list[Task]:
        """The next tasks. Raises `NothingLeft` if all were left out."""
        drawn = [self._next() for _ in range(count)]
        self._drawn += count
        return drawn

    def _next(self) -> Task:
        # Two passes less one hold every task at least once, wherever they begin.
        for _ in range(2 * len(self._tasks)):
            task = self._tasks[self._index(self._position)]
            self._position += 1
            if not self.leaves_out(task):
                return task
        raise NothingLeft(f"All of the {len(self._tasks)} tasks were left out: {self.left_out}.")

    def _index(self, number: int) -> int:
        turn, position = divmod(number, len(self._tasks))
        if self._pass[0] != turn:
            self._tell_of_unmet(self._pass[0])
            generator = seeded_generator(self._seed, "tasks", turn)
            self._pass = (turn, torch.randperm(len(self._tasks), generator=generator).tolist())
        return self._pass[1][position]

    def _tell_of_unmet(self, turn: int) -> None:
        """At the end of a pass: families to be left out to which no task of all of it belonged may be misspelt."""
        for (by, name), since in list(self._unmet.items()):
            if since < turn:
                logger.warning("%r is to be left out by %s, but no task has that %s.", name, by, by)
                del self._unmet[by, name]

    def state_dict(self) -> dict[str, Any]:
        return {"drawn": self._drawn, "position": self._position, "left_out": self.left_out}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._drawn = state["drawn"]
        # Before tasks could be left out, each position was a draw.
        self._position = state.get("position", self._drawn)
        self._left_out = {by: set(names) for by, names in state.get("left_out", {}).items()}
