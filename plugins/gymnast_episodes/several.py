"""Several datasets of episodes, or of tasks, as one."""

from __future__ import annotations

import itertools
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field

from gymnast_core.config import ComponentConfig
from gymnast_core.config.ranges import Count
from gymnast_core.errors import ConfigError
from gymnast_core.interfaces import Dataset
from gymnast_core.plugins.compose import registries
from gymnast_core.types import Episode, Task
from gymnast_episodes.crops import Lazy


class SeveralEpisodes(Dataset):
    """The episodes of several datasets, one after another; some may count more than once. Their tasks, likewise.

    A world model's play, demonstrations and what the policy itself did:

        {name: several-episodes, args: {of: [{name: lerobot, args: {path: play}}, {name: lerobot, args: {path: own}}],
                                        times: [1, 2]}}
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
        ends = list(itertools.accumulate(len(part) for part in parts))

        def task(index: int) -> Task:
            place = bisect_right(ends, index)
            return parts[place][index - (ends[place - 1] if place else 0)]

        return Lazy(ends[-1], task)

    def episodes(self) -> Sequence[Episode]:
        times = self.config.times or [1] * len(self._datasets)
        parts = [part for dataset, n in zip(self._datasets, times, strict=True) for part in [dataset.episodes()] * n]
        ends = list(itertools.accumulate(len(part) for part in parts))

        def item(index: int) -> Episode:
            place = bisect_right(ends, index)
            return parts[place][index - (ends[place - 1] if place else 0)]

        together = Lazy(ends[-1], item)
        lengths: list[int] = []
        for part in parts:
            frames = getattr(part, "frames", None)
            if frames is None:
                return together
            lengths += [frames] * len(part) if isinstance(frames, int) else frames
        together.frames = lengths
        return together
