"""Another dataset's tasks, some of them edited: to train on what a probe would ask."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gymnast_core.config import ComponentConfig
from gymnast_core.config.ranges import Fraction, Seed
from gymnast_core.errors import ConfigError, DataError
from gymnast_core.interfaces import Dataset, Parts
from gymnast_core.plugins.compose import registries
from gymnast_core.types import Task
from gymnast_probe.interfaces import Edit, NotApplicable
from gymnast_probe.library import build_edit, check_judged, edit_task


class EditedTasks(Dataset):
    """The same tasks in the same order; which are edited, and how, depends on the seed and the task's place.

    A policy that is trained on them is rewarded for the goal that the edit leaves or sets. What keeps the goal but
    hides it from the judge (paraphrase, nonsense) is refused: rollouts are judged by the words that the policy got. So
    is an edit of the goal where the run's judge would go on to judge the old one (a simulator that cannot be told).
    """

    api_version = 2

    @dataclass(frozen=True)
    class Config:
        dataset: ComponentConfig
        """The tasks to edit."""
        edits: dict[str, Any] = field(default_factory=dict)
        """Label -> {edit: NAME, settings...}, as `gymnast probe` takes them; each edited task gets one of them. None
        means distractors."""
        share: Fraction = 0.5
        """Share of the tasks that is edited."""
        seed: Seed = 0
        """Of which tasks are edited, and how."""

    def __init__(self, config: EditedTasks.Config) -> None:
        self.config = config
        self._edits = {}
        for label, settings in (config.edits or {"distractor": {}}).items():
            settings = {"edit": label, **(settings or {})}
            if settings["edit"] in ("paraphrase", "nonsense"):
                raise ConfigError(f"tasks.args.edits.{label}: judges would be asked about words that mean nothing new.")
            self._edits[str(label)] = build_edit(str(label), settings)

    def tasks(self) -> Sequence[Task]:
        part = self.config.dataset
        tasks = registries().datasets.build(part.name, part.args, key="tasks.args.dataset").tasks()
        return _Edited(tasks, self._edit, self._edits if self.config.share > 0 else {})

    def _edit(self, task: Task, index: int) -> Task:
        digest = hashlib.sha256(f"{self.config.seed}\0{index}".encode()).digest()
        if int.from_bytes(digest[:4], "big") / 2**32 >= self.config.share:
            return task
        labels = list(self._edits)
        label = labels[int.from_bytes(digest[4:8], "big") % len(labels)]
        try:
            return edit_task(self._edits[label], label, task, self.config.seed).task
        except NotApplicable:
            return task


class _Edited(Sequence[Task]):
    """Edits a task when it is indexed."""

    def __init__(self, tasks: Sequence[Task], edit: Callable[[Task, int], Task], edits: Mapping[str, Edit]) -> None:
        self._tasks, self._edit, self._edits = tasks, edit, edits
        self.ids: Sequence[str] | None = getattr(tasks, "ids", None)
        if not len(tasks):
            raise DataError("The dataset to edit holds no tasks.")

    def attach(self, parts: Parts) -> None:
        """Raises `ConfigError` if the judge of a run cannot judge what edited tasks ask for."""
        if parts.reward_model is not None:
            check_judged(self._edits, self._tasks[0], parts.reward_model, "tasks.args.edits")

    def __len__(self) -> int:
        return len(self._tasks)

    def __getitem__(self, index):  # type: ignore[no-untyped-def]
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(f"No task {index}; there are {len(self)}.")
        return self._edit(self._tasks[index % len(self)], index % len(self))
