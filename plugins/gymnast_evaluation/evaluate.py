"""Monte-Carlo evaluation: roll a policy out in a world and judge every episode, in one process or shared by several."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import Future

import numpy as np

from gymnast_core.config import ComponentConfig
from gymnast_core.errors import DataError
from gymnast_core.interfaces import AttachedTasks, Parts, Policy, RewardModel, WorldModel
from gymnast_core.money import total_usd
from gymnast_core.plugins import compose
from gymnast_core.processes import Processes
from gymnast_core.rollouts.imagine import imagine
from gymnast_core.seeds import seeded_generator
from gymnast_core.statistics import mean_interval
from gymnast_core.success import success_of
from gymnast_core.training.judge import judge, submit
from gymnast_core.types import Reward, Rollout, Task
from gymnast_evaluation.results import EpisodeResult, Evaluation


def roll_out(
    policy: Policy,
    world: WorldModel,
    tasks: Sequence[Task],
    *,
    first: int,
    horizon: int,
    temperature: float,
    seed: int,
) -> list[Rollout]:
    """One batch of rollouts, whose first trial has the number `first`.

    All noise comes from `seed` and `first`: the batch is the same whatever was rolled out before it, and two policies
    meet the same noise.
    """
    modes = [(module, module.training) for module in policy.modules()]
    policy.eval()
    try:
        return imagine(
            policy, world, tasks, horizon=horizon, temperature=temperature, batch_size=len(tasks),
            generator=seeded_generator(seed, "evaluate", first), groups=range(first, first + len(tasks)),
        )  # fmt: skip
    finally:
        for module, training in modes:
            module.training = training


def share(size: int, batch_size: int, *, processes: Processes, leads_below: int = 0) -> list[int]:
    """First trials of the batches that this process rolls out, of `size` trials in batches that the number of processes
    has no part in.

    The trials below `leads_below` are the leader's, who films; the others are dealt to who has least.
    """
    firsts = list(range(0, size, batch_size))
    dealt: list[list[int]] = [[first for first in firsts if first < leads_below]]
    dealt += [[] for _ in range(processes.count - 1)]
    for first in firsts[len(dealt[0]) :]:
        min(dealt, key=len).append(first)
    return dealt[processes.rank]


def evaluate(
    policy: Policy,
    world: WorldModel,
    reward_model: RewardModel,
    tasks: Sequence[Task],
    *,
    label: str,
    names: tuple[str, str],
    horizon: int,
    temperature: float = 0.0,
    seed: int = 0,
    iteration: int = 0,
    batch_size: int = 256,
    again: int = 0,
    processes: Processes | None = None,
    leads_below: int = 0,
) -> tuple[Evaluation, list[Rollout], list[Reward]]:
    """Roll the policy out once per task and judge every episode; what cannot be judged is asked for `again`.

    `names` are the world's and the judge's names. Of several processes, each rolls out its `share` and returns that,
    with the result over all of them. Raises `DataError` if no episode could be judged.
    """
    began, processes = time.monotonic(), processes or Processes()
    waiting: list[tuple[list[Rollout], Future[list[Reward]]]] = []
    for first in share(len(tasks), batch_size, processes=processes, leads_below=leads_below):
        batch = roll_out(
            policy, world, tasks[first : first + batch_size], first=first, horizon=horizon, temperature=temperature,
            seed=seed,
        )  # fmt: skip
        # A judge that answers slowly works on this batch while the next one is rolled out.
        waiting.append((batch, submit(reward_model, batch)))
    rollouts = [rollout for batch, _ in waiting for rollout in batch]
    rewards = [reward for batch, scored in waiting for reward in judge(reward_model, batch, scored, again)]
    episodes = _of_all(rollouts, rewards, processes)
    scored = [(episode.task, episode.value) for episode in episodes if episode.value is not None]
    tasks_of, values = [task for task, _ in scored], [value for _, value in scored]
    if not values:
        raise DataError(
            f"The reward model {names[1]!r} could judge none of the {len(episodes)} episodes of {label!r} in "
            f"{names[0]!r}. First error: {episodes[0].error}"
        )
    result = Evaluation(
        label=label,
        iteration=iteration,
        world=names[0],
        reward_model=names[1],
        temperature=temperature,
        horizon=horizon,
        seed=seed,
        n=len(values),
        unscored=len(episodes) - len(values),
        rate=float(np.mean(values)),
        interval=mean_interval(values, reward_model.kind, tasks_of, seed=seed),
        seconds=time.monotonic() - began,
        episodes=episodes,
        reward_kind=reward_model.kind,
        batch_size=batch_size,
        cost_usd=total_usd(processes.gather(total_usd(reward.cost_usd for reward in rewards))),
    )
    return result, rollouts, rewards


def _of_all(rollouts: Sequence[Rollout], rewards: Sequence[Reward], processes: Processes) -> tuple[EpisodeResult, ...]:
    """The judgements of all processes in the order of the trials: numbers and words travel, frames do not."""
    mine = [
        (r.group, EpisodeResult(r.task.id, r.task.instruction, success_of(reward), reward.partial, reward.error))
        for r, reward in zip(rollouts, rewards, strict=True)
    ]
    everyone = sorted((row for theirs in processes.gather(mine) for row in theirs), key=lambda row: row[0])
    return tuple(episode for _, episode in everyone)


def load_tasks(config: ComponentConfig, limit: int | None = None) -> Sequence[Task]:
    """The tasks of a dataset component, at most `limit` of them. Raises `DataError` if there are none,
    or if two have one id."""
    tasks = compose.load_tasks(config)
    return tasks if limit is None else _First(tasks, limit)


class _First(Sequence[Task]):
    """The first tasks of a dataset, still read when they are indexed."""

    def __init__(self, tasks: Sequence[Task], limit: int) -> None:
        self._tasks, self._length = tasks, min(limit, len(tasks))

    def attach(self, parts: Parts) -> None:
        if isinstance(self._tasks, AttachedTasks):
            self._tasks.attach(parts)

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index):  # type: ignore[no-untyped-def]
        if isinstance(index, slice):
            return [self._tasks[i] for i in range(*index.indices(self._length))]
        if not -self._length <= index < self._length:
            raise IndexError(f"No task {index}; there are {self._length}.")
        return self._tasks[index % self._length]
