"""Datasets whose items have ids in common: told apart by a number, where they are not the same items."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from gymnast_core.distinct_tasks import known_ids
from gymnast_episodes.crops import Origin


@dataclass(frozen=True)
class Part:
    """One of several datasets."""

    component: str
    """Its name and arguments: two of the same are the same dataset."""
    items: Sequence[Any]
    """Its episodes or tasks."""

    @property
    def origin(self) -> Origin | None:
        return getattr(self.items, "origin", None)

    @cached_property
    def episodes(self) -> frozenset[str] | None:
        """Ids of the episodes that its items are from, which are fewer than those of their crops; None: unknown."""
        return None if self.origin is None else frozenset(self.origin.episodes)

    @cached_property
    def ids(self) -> frozenset[str] | None:
        """Ids of its items; None: unknown until they are made."""
        found = known_ids(self.items)
        return None if found is None else frozenset(found)

    def is_same(self, other: Part) -> bool:
        """Whether one id stands for one item in both."""
        if self.component == other.component:
            return True
        folders = [part.origin.folder for part in (self, other) if part.origin is not None]
        return len(folders) == 2 and folders[0] is not None and folders[0] == folders[1]


def numbers(parts: Sequence[Part]) -> list[int]:
    """The number of each part, counted from 1: the first with which its ids are none of another one's before it. Ids
    that are not known without making the items are taken to be nobody else's."""
    found: list[int] = []
    for place, part in enumerate(parts):
        others = [(one, number) for one, number in zip(parts[:place], found, strict=True) if not part.is_same(one)]
        number = 1
        while any(_meet(part, number, other, theirs) for other, theirs in others):
            number += 1
        found.append(number)
    return found


def marked(id: str, number: int) -> str:
    """The id of an item in the part of that number: "episodes/000004" in the first, "episodes/000004#2" in the second.
    What stands before the last slash, by which tasks are grouped, stays as it is."""
    return id if number == 1 else f"{id}#{number}"


def _meet(part: Part, number: int, other: Part, theirs: int) -> bool:
    """Whether two parts of these numbers have an id in common."""
    mine, others = part.episodes, other.episodes
    if mine is None or others is None:
        mine, others = part.ids, other.ids
    if mine is None or others is None:
        return False
    return not {marked(id, number) for id in mine}.isdisjoint(marked(id, theirs) for id in others)
