"""Tasks that start shortly before something went wrong, among ordinary ones: what `tasks: keyframe-tasks` builds."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Annotated

import torch
from gymnast_core.config import ComponentConfig
from gymnast_core.config.ranges import AnyNumber, Count, Range, Seed, ZeroOrMore, check_values
from gymnast_core.errors import ConfigError, DataError
from gymnast_core.interfaces import Dataset, Parts
from gymnast_core.plugins.compose import registries
from gymnast_core.types import Task
from gymnast_episodes.crops import Lazy

from gymnast_wovr.clips import clip_ends, length
from gymnast_wovr.keyframes import Failure, keyframe_task, recorded_failures, seen_by, stored_failures, wrong_steps

log = logging.getLogger(__name__)


class KeyframeTasks(Dataset):
    """Near failures of stored rollouts or recorded episodes as starts, mixed with first-frame tasks in a fixed share.

    Where failed rollouts went wrong is the rule of `gymnast_wovr.keyframes`. A keyframe task has `context` + 1 context
    frames and no environment: no reset of one shows its last frame. It is read once, when `tasks` is called.
    First-frame tasks show the cameras that the rollouts were seen in.
    """

    api_version = 2

    @dataclass(frozen=True)
    class Config:
        first: ComponentConfig | None = None
        """Dataset of the tasks that start at the first frame, {name, args}; needed unless `share` is 1."""
        runs: list[str] = field(default_factory=list)
        """Folders of earlier runs whose stored rollouts are read (hooks.judging.keep_iterations=N keeps more)."""
        episodes: ComponentConfig | None = None
        """Dataset of recorded episodes that are read after them, in an order drawn by the seed."""
        share: Annotated[float, Range(above=0, most=1)] = 0.5
        """Share of the keyframe tasks among all, in (0, 1]; the rarer kind is repeated to reach it."""
        context: Count = 4
        """Frames shown before and at the keyframe, besides the first frame; the world model's window bounds it."""
        lead: ZeroOrMore = 4
        """Control steps from the keyframe to the step at which it went wrong."""
        count: Count = 256
        """Different keyframe tasks at most; reading stops there."""
        judge: ComponentConfig | None = None
        """Reward model whose scores say when a rollout went wrong; None: at its last step."""
        judge_every: Count = 4
        """Actions between the steps that the judge is asked about."""
        still_action: list[AnyNumber] | None = None
        """Action that leaves the robot where it is, robot units. First-frame tasks then show their first frame
        `context` + 1 times, so that both kinds fit into one batch; None leaves them as they are."""
        seed: Seed = 0
        """Order in which recorded episodes are read."""

    def __init__(self, config: Config) -> None:
        _check(config)
        self.config = config
        known = registries()
        self._first = self._episodes = None
        if config.first is not None:
            self._first = known.datasets.build(config.first.name, config.first.args, key="tasks.args.first")
        if config.episodes is not None:
            self._episodes = known.datasets.build(config.episodes.name, config.episodes.args, key="tasks.args.episodes")

    def tasks(self) -> Sequence[Task]:
        """Both kinds, spread evenly. Raises `DataError` if a kind has none."""
        keyframes, share = self._keyframe_tasks(), self.config.share
        cameras = keyframes[0].cameras
        if self._first is None or share == 1.0:
            return keyframes
        first = self._first.tasks()
        if not len(first):
            raise DataError("tasks.args.first: that dataset holds no tasks.")
        # As many as it takes for each task of both kinds to appear; 3 / (1 - 0.8) is 15, but for rounding.
        total = math.ceil(round(max(len(keyframes) / share, len(first) / (1.0 - share)), 6))

        def task(index: int) -> Task:
            before = math.floor(index * share + 0.5)
            if math.floor((index + 1) * share + 0.5) > before:
                return _turn(keyframes, before)
            return self._padded(_turn(first, index - before), cameras)

        return Lazy(total, task)

    def _keyframe_tasks(self) -> list[Task]:
        config = self.config
        long_enough = (one for one in self._failures() if length(one.rollout) >= config.context)
        failures = list(islice(long_enough, config.count))
        if not failures:
            places = [*config.runs, *([] if config.episodes is None else [config.episodes.name])]
            raise DataError(
                f"keyframe-tasks found no failed rollout of at least {config.context} actions in {', '.join(places)}. "
                "A run keeps judged rollouts of its newest iterations: hooks.judging.keep_iterations=N keeps more."
            )
        wrong = self._wrong_steps(failures)
        tasks = [
            keyframe_task(failure, step, context=config.context, lead=config.lead)
            for failure, step in zip(failures, wrong, strict=True)
            if step is not None
        ]
        if not tasks:
            raise DataError(f"The judge of keyframe-tasks could not judge any of {len(failures)} failed rollouts.")
        if other := next((task for task in tasks if task.cameras != tasks[0].cameras), None):
            raise DataError(
                f"keyframe-tasks: {tasks[0].id} was seen in the cameras {', '.join(tasks[0].cameras)}, {other.id} in "
                f"{', '.join(other.cameras)}. Use runs and episodes of the same cameras."
            )
        if len(tasks) < len(failures):
            log.warning("%d of %d failed rollouts could not be judged: left out.", wrong.count(None), len(failures))
        return tasks

    def _failures(self) -> Iterator[Failure]:
        for folder in self.config.runs:
            yield from stored_failures(Path(folder))
        if self._episodes is not None:
            yield from recorded_failures(self._episodes.episodes(), self.config.seed)

    def _wrong_steps(self, failures: Sequence[Failure]) -> list[int | None]:
        part, every = self.config.judge, self.config.judge_every
        if part is None:
            return wrong_steps(failures, None, every)
        judge = registries().reward_models.build(part.name, part.args, key="tasks.args.judge")
        judge.attach(Parts(reward_model=judge))
        lengths = [length(failure.rollout) for failure in failures]
        judge.preflight(sum(len(clip_ends(actions, every)) for actions in lengths), 1 + max(lengths))
        try:
            return wrong_steps(failures, judge, every)
        finally:
            judge.close()

    def _padded(self, task: Task, cameras: tuple[str, ...]) -> Task:
        """A first-frame task, in the keyframes' cameras, with as many context frames as they have."""
        if task.cameras != cameras:
            task = replace(task, frames_TVHWC=seen_by(task, cameras), cameras=cameras)
        still, length = self.config.still_action, self.config.context + 1
        if still is None or len(task.frames_TVHWC) != 1:
            return task
        proprio_TP = task.proprio_TP
        return replace(
            task,
            frames_TVHWC=task.frames_TVHWC.expand(length, -1, -1, -1, -1).clone(),
            actions_TA=torch.tensor([list(still)] * (length - 1), dtype=torch.float32),
            proprio_TP=None if proprio_TP is None else proprio_TP.expand(length, -1).clone(),
        )


def _turn(tasks: Sequence[Task], number: int) -> Task:
    """The tasks over and over, with ids that stay unique."""
    again, index = divmod(number, len(tasks))
    task = tasks[index]
    return replace(task, id=f"{task.id}#{again + 1}") if again else task


def _check(config: KeyframeTasks.Config) -> None:
    check_values(type(config), asdict(config), "tasks.args")
    if not config.runs and config.episodes is None:
        raise ConfigError("keyframe-tasks needs rollouts: set tasks.args.runs=[RUN] or tasks.args.episodes.")
    if config.first is None and config.share < 1.0:
        raise ConfigError(
            f"tasks.args.share is {config.share}, so first-frame tasks are mixed in: set tasks.args.first, or share=1."
        )
