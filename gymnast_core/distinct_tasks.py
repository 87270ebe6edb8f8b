"""Tasks of one dataset that share an id: refused, since results are paired by it and starts told apart by it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import overload

from gymnast_core.errors import DataError
from gymnast_core.interfaces import AttachedTasks, Parts
from gymnast_core.types import Task

MOST_LISTED = 1_000_000
"""Ids that are held in memory at once; of more tasks, those that are read are compared."""


def distinct(tasks: Sequence[Task], name: str) -> Sequence[Task]:
    """The tasks, no two of which have one id.

    A sequence with an attribute `ids` (the id of every item, known without making it) is not read; lists are. The tasks
    of others, which may be slow to make, are compared when they are read: what comes back does that.

    Args:
        tasks: those of one dataset.
        name: what they are called in messages, e.g. "the dataset 'episode-starts'".

    Raises:
        DataError: two tasks share an id; at once where ids are known, else when the second one is read.
    """
    ids = known_ids(tasks)
    if ids is None:
        return _Compared(tasks, name)
    places: dict[str, int] = {}
    for place, id in enumerate(ids):
        if places.setdefault(id, place) != place:
            raise _twice(name, id, places[id], place)
    return tasks


def known_ids(items: Sequence[Task]) -> Sequence[str] | None:
    """The ids of tasks that need not be made for it; None of others, and of more than are listed."""
    if isinstance(items, list | tuple):
        return [item.id for item in items]
    return getattr(items, "ids", None) if len(items) <= MOST_LISTED else None


class _Compared(Sequence[Task]):
    """Tasks of which every one that is read is compared with those read before."""

    def __init__(self, tasks: Sequence[Task], name: str) -> None:
        self._tasks, self._name = tasks, name
        self._places: dict[str, int] = {}

    def attach(self, parts: Parts) -> None:
        """Tell the tasks, if they want to know."""
        if isinstance(self._tasks, AttachedTasks):
            self._tasks.attach(parts)

    def __len__(self) -> int:
        return len(self._tasks)

    @overload
    def __getitem__(self, index: int) -> Task: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Task]: ...
    def __getitem__(self, index: int | slice) -> Task | Sequence[Task]:
        places = range(len(self))
        if isinstance(index, slice):
            return [self._seen(task, place) for task, place in zip(self._tasks[index], places[index], strict=True)]
        return self._seen(self._tasks[index], places[index])

    def _seen(self, task: Task, place: int) -> Task:
        first = self._places.setdefault(task.id, place)
        if first != place:
            raise _twice(self._name, task.id, *sorted((first, place)))
        return task


def _twice(name: str, id: str, first: int, second: int) -> DataError:
    return DataError(
        f"Two tasks of {name} have the id {id!r}: number {first} and number {second}, from 0. An id stands for one "
        "start, and results are paired by it. If they are one start, name it once (a folder, a range of seeds or a "
        "dataset may be listed twice); else give them different ids, as folders of different names do."
    )
