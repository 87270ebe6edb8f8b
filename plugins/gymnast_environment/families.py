"""Which environments, and from which seeds: the section `environments` of every config that names some."""

from __future__ import annotations

import bisect
import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from gymnast_core.config.ranges import INTEGERS, Count, Seed
from gymnast_core.errors import ConfigError
from gymnast_core.types import EnvironmentStart
from gymnast_environment.goals import TOLD

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_SPAN = re.compile(r"\s*(\d+)\s*-\s*(\d+)\s*")


@dataclass(frozen=True)
class Family:
    """One environment and the seeds that it starts from.

    >>> Family("Meta-World/door-open", name="door-open", first=100000, count=50).start(17).seed
    100017
    """

    id: str
    """Gymnasium id, e.g. "gymnast/Tabletop-v0"; with a module where that must be imported first ("pkg:Name-v0")."""
    args: dict[str, Any] = field(default_factory=dict)
    """Keyword arguments of `gymnasium.make`."""
    options: dict[str, Any] = field(default_factory=dict)
    """`options` of every reset."""
    count: Count | None = None
    """How many; null: as many as `seeds` lists."""
    first: Seed = 0
    """The first seed; the others follow it. Not beside `seeds`."""
    seeds: list[Any] = field(default_factory=list)
    """Instead of `first`: seeds one by one, and spans of them with both ends, e.g. [3, "100-149"]."""
    instruction: str | None = None
    """What to do there, in words; null: what the environment says under `view.instruction_key`."""
    told: bool = False
    """Whether its reset takes the instruction, as `options={"instruction": TEXT}`, and judges success by it: an edited
    task then tells it the new one. false: its success is about its own instruction, whatever a task asks for."""
    name: str | None = None
    """What tasks and episodes of this family are called, before their seed; null: the last part of the id."""

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.label):
            raise ConfigError(
                f"environments: {self.id!r} would be called {self.label!r}; give it a name of letters, digits, '_', "
                "'-' and '.': name: door-open."
            )
        if self.seeds and self.first:
            raise ConfigError(f"environments: {self.label!r} has seeds and first={self.first}. Give one of them.")
        if self.instruction is not None and not self.instruction.strip():
            raise ConfigError(f"environments: the instruction of {self.label!r} says nothing.")
        self._spans()

    @property
    def label(self) -> str:
        """What its tasks are called before their seed."""
        return self.name if self.name is not None else self.id.rpartition(":")[2].rpartition("/")[2]

    @property
    def listed(self) -> int | None:
        """Seeds that there are to take; None: any number from `first` on."""
        return sum(len(span) for span in self._spans()) if self.seeds else None

    def start(self, index: int) -> EnvironmentStart:
        """How the start of that number, from 0, comes about. Raises `IndexError` behind the last."""
        options = self.options
        if self.told and self.instruction is not None:
            options = {**options, TOLD: self.instruction}
        return EnvironmentStart(self.id, self._seed(index), options=options, args=self.args)

    def aimed(self, start: EnvironmentStart, instruction: str) -> EnvironmentStart:
        """The same start, which says what its success is about, once the instruction is known."""
        if self.told:
            return replace(start, options={**start.options, TOLD: instruction})
        return replace(start, instruction=instruction)

    def _seed(self, index: int) -> int:
        if not self.seeds:
            return self.first + index
        for span in self._spans():
            if index < len(span):
                return span[index]
            index -= len(span)
        raise IndexError(f"{self.label!r} has {self.listed} seeds.")

    def _spans(self) -> list[range]:
        found = [self._span(entry) for entry in self.seeds]
        ends = sorted((span.start, span.stop) for span in found)
        if any(one[1] > other[0] for one, other in itertools.pairwise(ends)):
            raise ConfigError(f"environments: seeds of {self.label!r} name a seed twice: {self.seeds}.")
        return found

    def _span(self, entry: Any) -> range:
        if isinstance(entry, int) and not isinstance(entry, bool) and 0 <= entry < INTEGERS:
            return range(entry, entry + 1)
        ends = _SPAN.fullmatch(entry) if isinstance(entry, str) else None
        if ends is None or not int(ends[1]) <= int(ends[2]) < INTEGERS:
            raise ConfigError(
                f"environments: seeds of {self.label!r} hold {entry!r}; give numbers from 0 on, or spans with both "
                'ends such as "100-149".'
            )
        return range(int(ends[1]), int(ends[2]) + 1)


def check_families(families: Sequence[Family], *, instructed: bool) -> None:
    """Raises `ConfigError` where there is no family, two have one name, or, unless `instructed`, one lacks its
    instruction."""
    if not families:
        raise ConfigError(
            "environments is empty; name one or more: environments=[{id: gymnast/Tabletop-v0, count: 8}]."
        )
    labels = [family.label for family in families]
    if twice := [label for label in labels if labels.count(label) > 1]:
        raise ConfigError(
            f"environments: {labels.count(twice[0])} of them are called {twice[0]!r}; tell them apart with name: NAME."
        )
    mute = [family.label for family in families if family.instruction is None]
    if mute and not instructed:
        raise ConfigError(
            f"environments: nothing says what is to be done in {', '.join(mute)}. Set instruction: TEXT there, or, "
            "where the environment itself says it, view.instruction_key=KEY."
        )


def place_of(counts: Sequence[int], order: str, index: int) -> tuple[int, int]:
    """(family, number within it) of an item: "family" by family, or "interleaved", one of each in turn."""
    if order == "family":
        ends = list(itertools.accumulate(counts))
        family = bisect.bisect_right(ends, index)
        return family, index - (ends[family] - counts[family])
    # Before round r, each family had r turns, or as many as it has items.
    turns = bisect.bisect_right(range(max(counts)), index, key=lambda r: sum(min(count, r) for count in counts)) - 1
    left = [family for family, count in enumerate(counts) if count > turns]
    return left[index - sum(min(count, turns) for count in counts)], turns
