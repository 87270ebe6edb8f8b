"""The starts of an adaptation: its targets and, on the side, tasks that are not to be forgotten."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated

from gymnast_core.config import ComponentConfig
from gymnast_core.config.ranges import Count, Range
from gymnast_core.errors import ConfigError, DataError
from gymnast_core.interfaces import Dataset
from gymnast_core.plugins.compose import registries
from gymnast_core.types import Task
from gymnast_episodes.crops import Lazy


class AdaptationTasks(Dataset):
    """The targets over and over, and among them the other tasks, so that these are a given share of all."""

    api_version = 2

    @dataclass(frozen=True)
    class Config:
        targets: ComponentConfig
        """Any dataset of tasks: {name, args}."""
        count: Count | None = None
        """Tasks of `targets` used, from the first; null uses all."""
        others: ComponentConfig | None = None
        """Any dataset of tasks, each of which is there at least once."""
        share: Annotated[float, Range(least=0, below=1)] = 0.0
        """Share of the tasks that are others, as nearly as whole numbers of tasks allow."""

    def __init__(self, config: Config) -> None:
        if bool(config.share) != (config.others is not None):
            raise ConfigError(f"share is {config.share:g}: give it together with others, or neither.")
        self.config = config

    def tasks(self) -> Sequence[Task]:
        """Others first, then the targets, each of them in turn. Raises `DataError` for tasks of other cameras."""
        targets, others = _tasks(self.config.targets, "targets"), _tasks(self.config.others, "others")
        count = min(len(targets), self.config.count or len(targets))
        target_places, other_places = _places(count, len(others), self.config.share)
        if others and others[0].cameras != targets[0].cameras:
            raise DataError(
                f"The targets show the cameras {', '.join(targets[0].cameras)}, the others "
                f"{', '.join(others[0].cameras)}. Choose tasks of the same robot."
            )

        def task(index: int) -> Task:
            if index < other_places:
                turn, place = divmod(index, len(others))
                found = others[place]
                return replace(found, id=f"other/{found.id}/{turn}")
            turn, place = divmod(index - other_places, count)
            found = targets[place]
            return replace(found, id=f"{found.id}/{turn}") if others else found

        return Lazy(other_places + target_places, task)


def _places(targets: int, others: int, share: float) -> tuple[int, int]:
    """How many tasks are targets, and how many others: each of both is there at least once, and the kind of which there
    are too few for `share` is repeated until the others are that share of all, to the nearest whole task."""
    if not others:
        return targets, 0
    targets_beside_others = round(others * (1 - share) / share)
    if targets_beside_others >= targets:
        return targets_beside_others, others
    return targets, round(targets * share / (1 - share))


def _tasks(part: ComponentConfig | None, key: str) -> Sequence[Task]:
    if part is None:
        return ()
    found = registries().datasets.build(part.name, part.args, key=key).tasks()
    if not len(found):
        raise DataError(f"{key}: the dataset {part.name!r} holds no tasks. Choose another.")
    return found
