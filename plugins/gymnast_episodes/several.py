"""Several datasets of episodes, or of tasks, as one."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate
from typing import TypeVar

from gymnast_core.config import ComponentConfig
from gymnast_core.config.ranges import Count
from gymnast_core.errors import ConfigError
from gymnast_core.interfaces import Dataset
from gymnast_core.plugins.compose import registries
from gymnast_core.types import Episode, Task
from gymnast_episodes.crops import Lazy, Origin
from gymnast_episodes.same_ids import Part, marked, numbers

Item = TypeVar("Item", Episode, Task)


class SeveralEpisodes(Dataset):
    """The episodes of several datasets, one after another; some may count more than once. Their tasks, likewise.

    A world model's play, demonstrations and what the policy itself did:

        {name: several-episodes, args: {of: [{name: lerobot, args: {path: play}}, {name: lerobot, args: {path: own}}],
                                        times: [1, 2]}}

    Ids are those of the datasets. Recordings in folders of one name (RUN/episodes of every `gymnast collect`) have ids
    in common: those of the second such dataset end with "#2", of the third with "#3". What is listed twice, or occurs
    more than once by `times`, is the same episode and keeps its id.
    """

    api_version = 2

    @dataclass(frozen=True)
    class Config:
        of: list[ComponentConfig]
        """Datasets of episodes, or of tasks: {name, args}."""
        times: list[Count] = field(default_factory=list)
        """How often the episodes of each occur, one number each; empty: once. Tasks occur once."""

    def __init__(self, config: Config) -> None:
        if not config.of:
            raise ConfigError("several-episodes: `of` is empty; name one or more datasets: of=[{name: …, args: {…}}].")
        if config.times and len(config.times) != len(config.of):
            raise ConfigError(
                f"several-episodes: `times` has {len(config.times)} numbers and `of` {len(config.of)} datasets. Give "
                "one number each, or leave it out."
            )
        self.config = config
        self._datasets = [
            registries().datasets.build(part.name, part.args, key=f"of[{i}]") for i, part in enumerate(config.of)
        ]

    def tasks(self) -> Sequence[Task]:
        """The tasks of all datasets. Raises `ConfigError` with `times`: ids are unique, so no task occurs twice."""
        parts = [dataset.tasks() for dataset in self._datasets]
        if any(n > 1 for n in self.config.times):
            raise ConfigError("several-episodes: `times` repeats episodes, not tasks. Leave it out.")
        return self._joined(parts, [1] * len(parts))

    def episodes(self) -> Sequence[Episode]:
        times = self.config.times or [1] * len(self._datasets)
        return self._joined([dataset.episodes() for dataset in self._datasets], times)

    def _joined(self, datasets: Sequence[Sequence[Item]], times: Sequence[int]) -> Lazy[Item]:
        """The items of each dataset as often as asked, with the ids and lengths that are known without making them."""
        found = numbers([Part(repr(part), items) for part, items in zip(self.config.of, datasets, strict=True)])
        repeated = [(items, number) for items, number, n in zip(datasets, found, times, strict=True) for _ in range(n)]
        parts = [items for items, _ in repeated]
        ends = list(accumulate(len(part) for part in parts))

        def item(index: int) -> Item:
            place = bisect_right(ends, index)
            part, number = repeated[place]
            made = part[index - (ends[place - 1] if place else 0)]
            return made if number == 1 else replace(made, id=marked(made.id, number))

        together = Lazy(ends[-1], item)
        together.frames = _lengths(parts)
        together.cropped = any(getattr(part, "cropped", False) for part in parts)
        together.ids = _ids([getattr(part, "ids", None) for part in parts], [number for _, number in repeated])
        origins = [getattr(part, "origin", None) for part in parts]
        episodes = _ids([origin and origin.episodes for origin in origins], [number for _, number in repeated])
        together.origin = None if episodes is None else Origin(None, episodes)
        return together


def _lengths(parts: Sequence[Sequence[Item]]) -> list[int] | None:
    """Frames of every item; None unless all parts know theirs."""
    lengths: list[int] = []
    for part in parts:
        frames = getattr(part, "frames", None)
        if frames is None:
            return None
        lengths += [frames] * len(part) if isinstance(frames, int) else frames
    return lengths


def _ids(parts: Sequence[Sequence[str] | None], found: Sequence[int]) -> Lazy[str] | None:
    """The ids of all parts, each marked with its part's number; None unless all are known."""
    known = [part for part in parts if part is not None]
    if len(known) < len(parts):
        return None
    ends = list(accumulate(len(part) for part in known))

    def id(index: int) -> str:
        place = bisect_right(ends, index)
        return marked(known[place][index - (ends[place - 1] if place else 0)], found[place])

    return Lazy(ends[-1], id)
