"""Which tasks come next: every pass over the dataset in an order of its own."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from gymnast_core.seeds import seeded_generator
from gymnast_core.types import Task


class TaskOrder:
    """Draws tasks without end. The order of each pass is a function of the seed and the pass alone."""

    def __init__(self, tasks: Sequence[Task], seed: int) -> None:
        self._tasks, self._seed = tasks, seed
        self._drawn = 0
        self._pass: tuple[int, list[int]] = (-1, [])

    @property
    def drawn(self) -> int:
        """Tasks drawn so far, over the whole run; the number of the next one."""
        return self._drawn

    def draw(self, count: int) -> list[Task]:
        """The next tasks."""
        drawn = [self._tasks[self._index(number)] for number in range(self._drawn, self._drawn + count)]
        self._drawn += count
        return drawn

    def _index(self, number: int) -> int:
        turn, position = divmod(number, len(self._tasks))
        if self._pass[0] != turn:
            generator = seeded_generator(self._seed, "tasks", turn)
            self._pass = (turn, torch.randperm(len(self._tasks), generator=generator).tolist())
        return self._pass[1][position]

    def state_dict(self) -> dict[str, Any]:
        return {"drawn": self._drawn}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._drawn = state["drawn"]
