"""Tasks of any Gymnasium environment: made from seeds when they are asked for."""

from __future__ import annotations

import weakref
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated

import torch

from gymnast_core.config.ranges import Choices, NotNegative
from gymnast_core.errors import ConfigError, DataError
from gymnast_core.interfaces import Dataset
from gymnast_core.types import ONE_CAMERA, EnvironmentStart, Task
from gymnast_environment.environments import Environments, Sensed
from gymnast_environment.families import Family, check_families, place_of
from gymnast_environment.hosting import Hosting
from gymnast_environment.view import View
from gymnast_episodes.crops import Lazy


class EnvironmentTasks(Dataset):
    """A task for each seed of each environment: what it shows after its reset, and what to do from there.

    Which seeds are for training, choosing and reporting is the user's to keep apart: spans that do not overlap.
    Ids name family and seed: "door-open/100017". The world model `gymnasium` starts from the same seeds; give it the
    same `view`. The reward model `environment` takes that of the tasks.
    """

    api_version = 2

    @dataclass(frozen=True)
    class Config:
        environments: list[Family]
        """The families of tasks."""
        view: View = field(default_factory=View)
        """How they are looked at."""
        hosting: Hosting = field(default_factory=Hosting)
        """Where they live while first frames are made."""
        constant_start: bool = False
        """Take environments that show the same start whatever their seed."""
        order: Annotated[str, Choices("family", "interleaved")] = "family"
        """Tasks family by family, which uses each environment again, or one of each family in turn."""
        partial_credit_criteria: str | None = None
        """What counts as half a success, for judges that give partial credit."""
        cache_mb: NotNegative = 256.0
        """Megabytes of first frames that are kept; a task that fell out is made again when it is asked for."""

    def __init__(self, config: EnvironmentTasks.Config) -> None:
        check_families(config.environments, instructed=config.view.instruction_key is not None)
        self.config = config
        self._counts = [_count(family) for family in config.environments]
        self._environments = Environments(config.view, config.hosting, constant_start=config.constant_start)

    def tasks(self) -> Sequence[Task]:
        return _Tasks(self.config, self._counts, self._environments)

    def close(self) -> None:
        self._environments.close()


class _Tasks(Lazy[Task]):
    """Makes tasks, keeps some, and gives their environments back when all are made or nobody asks any more."""

    def __init__(self, config: EnvironmentTasks.Config, counts: Sequence[int], environments: Environments) -> None:
        super().__init__(sum(counts), self._get)
        self._config, self._counts, self._environments = config, counts, environments
        self.ids = Lazy(len(self), self._name)
        self._kept: OrderedDict[int, Task] = OrderedDict()
        self._bytes = 0
        weakref.finalize(self, environments.close)

    def __getitem__(self, index):  # type: ignore[no-untyped-def]
        if isinstance(index, slice):
            # Several at once are made in parallel.
            wanted = range(*index.indices(len(self)))
            made = self._make_all([i for i in wanted if i not in self._kept])
            return [made[i] if i in made else self._get(i) for i in wanted]
        return super().__getitem__(index)

    def _get(self, index: int) -> Task:
        if index in self._kept:
            self._kept.move_to_end(index)
            return self._kept[index]
        return self._make_all([index])[index]

    def _make_all(self, indices: Sequence[int]) -> dict[int, Task]:
        starts = [self._start(index) for index in indices]
        made: dict[int, Task] = {}
        size = self._config.hosting.max_environments
        for first in range(0, len(indices), size):
            lives = self._environments.reset(starts[first : first + size])
            try:
                for index, start, live in zip(indices[first:], starts[first:], lives, strict=False):
                    if live.error is not None:
                        raise DataError(f"Task {self._name(index)!r}: {live.error}")
                    made[index] = self._task(index, start, live.sensed)
            finally:
                for live in lives:
                    live.release()
        for index, task in made.items():
            self._keep(index, task)
        if len(self._kept) == len(self):
            self._environments.close()
        return made

    def _start(self, index: int) -> EnvironmentStart:
        return self._family(index).start(self._place(index)[1])

    def _name(self, index: int) -> str:
        return f"{self._family(index).label}/{self._start(index).seed}"

    def _family(self, index: int) -> Family:
        return self._config.environments[self._place(index)[0]]

    def _place(self, index: int) -> tuple[int, int]:
        return place_of(self._counts, self._config.order, index)

    def _task(self, index: int, start: EnvironmentStart, sensed: Sensed) -> Task:
        instruction = self._family(index).instruction or sensed.instruction
        if instruction is None or not instruction.strip():
            raise DataError(
                f"Task {self._name(index)!r}: the environment says nothing under "
                f"view.instruction_key={self._config.view.instruction_key}. Set environments[].instruction."
            )
        return Task(
            self._name(index),
            instruction,
            torch.from_numpy(sensed.frames_VHWC)[None],
            cameras=self._config.view.camera_names or ONE_CAMERA,
            proprio_TP=None if sensed.proprio_P is None else torch.from_numpy(sensed.proprio_P)[None],
            start=replace(self._family(index).aimed(start, instruction), view=self._config.view.told()),
            partial_credit_criteria=self._config.partial_credit_criteria,
        )

    def _keep(self, index: int, task: Task) -> None:
        self._kept[index] = task
        self._bytes += task.frames_TVHWC.nbytes
        while self._kept and self._bytes > self._config.cache_mb * 2**20:
            _, dropped = self._kept.popitem(last=False)
            self._bytes -= dropped.frames_TVHWC.nbytes


def _count(family: Family) -> int:
    listed = family.listed
    if family.count is None and listed is None:
        raise ConfigError(
            f"environments: {family.label!r} has no seeds. Set count: N (and first: SEED), or seeds: [...]."
        )
    if family.count is not None and listed is not None and family.count > listed:
        raise ConfigError(f"environments: {family.label!r} has {listed} seeds, fewer than its count {family.count}.")
    return family.count if family.count is not None else listed or 0
