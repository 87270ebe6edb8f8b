"""Several datasets of episodes as one."""

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
from gymnast_core.types import Episode
from gymnast_episodes.crops import Lazy


class SeveralEpisodes(Dataset):
    """The episodes of several datasets, one after another; some may count more than once.

    A world model's play, demonstrations and what the policy itself did:

        {name: several-episodes, args: {of: [{name: lerobot, args: {path: play}}, {name: lerobot, args: {path: own}}],
                                        times: [1, 2]}}
    """

    api_version = 2

    @dataclass(frozen=True)
    class Config:
        of: list[ComponentConfig]
        """Datasets of episodes: {name, args}."""
        times: list[Count] = field(default_factory=list)
        """How often the episodes of each occur, one number each; empty: once."""

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
