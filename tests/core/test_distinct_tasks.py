"""Two tasks of one id are refused, as soon as that can be known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from gymnast_core import distinct_tasks
from gymnast_core.distinct_tasks import distinct
from gymnast_core.errors import DataError
from gymnast_core.interfaces import Parts
from gymnast_core.testing.making import make_tasks
from gymnast_core.types import Task


class Made(Sequence[Task]):
    """Tasks of given ids, made when they are asked for."""

    def __init__(self, *ids: str) -> None:
        (self.task,) = make_tasks(1, 8)
        self.names, self.read = ids, 0

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index):  # type: ignore[no-untyped-def]
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        self.read += 1
        return replace(self.task, id=self.names[index])


TWICE = ("a", "b", "c", "b")
SAID = r"Two tasks of the dataset 'play' have the id 'b': number 1 and number 3, from 0\. .* name it once .* give them"


def test_a_list_is_refused_at_once() -> None:
    with pytest.raises(DataError, match=SAID):
        distinct(list(Made(*TWICE)), "the dataset 'play'")
    tasks = list(Made("a", "b"))
    assert distinct(tasks, "the dataset 'play'") is tasks


def test_ids_that_are_known_cost_no_reading() -> None:
    made = Made(*TWICE)
    made.ids = list(TWICE)
    with pytest.raises(DataError, match=SAID):
        distinct(made, "the dataset 'play'")
    assert made.read == 0


def test_tasks_that_must_be_made_are_compared_when_they_are_read() -> None:
    made = Made(*TWICE)
    tasks = distinct(made, "the dataset 'play'")
    assert made.read == 0 and len(tasks) == 4
    assert [tasks[0].id, tasks[1].id, tasks[0].id, tasks[-3].id] == ["a", "b", "a", "b"]  # the same one again
    assert [task.id for task in tasks[:3]] == ["a", "b", "c"] and [task.id for task in tasks[2:0:-1]] == ["c", "b"]
    with pytest.raises(DataError, match=SAID):
        tasks[3]
    with pytest.raises(DataError, match=SAID):
        distinct(Made(*TWICE), "the dataset 'play'")[1:]
    with pytest.raises(IndexError):
        tasks[4]


def test_tasks_that_want_to_know_the_parts_are_told() -> None:
    told: list[Parts] = []
    made = Made("a", "b")
    made.attach = told.append
    for tasks in (made, Made("a", "b")):
        Parts(tasks=distinct(tasks, "the dataset 'play'")).attach()
    assert len(told) == 1


def test_more_tasks_than_are_listed_are_compared_when_they_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distinct_tasks, "MOST_LISTED", 3)
    made = Made(*TWICE)
    made.ids = list(TWICE)
    with pytest.raises(DataError, match=SAID):
        list(distinct(made, "the dataset 'play'"))
    assert made.read == 4
