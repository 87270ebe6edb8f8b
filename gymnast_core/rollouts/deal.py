"""Who makes and keeps which groups.

A group is imagined, judged, kept and learned from where it was made; numbers travel, frames do not. How rollouts are
put into batches depends on the config alone, so that the same noise makes the same rollouts in any number of processes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from gymnast_core.errors import ConfigError
from gymnast_core.types import Reward, Rollout, Task


@dataclass(frozen=True)
class Group:
    """The K rollouts of one task draw, with their rewards."""

    label: int
    """Number of the draw, counted over the whole run."""
    rollouts: tuple[Rollout, ...]
    rewards: tuple[Reward, ...]


@dataclass(frozen=True)
class Batch:
    """Episodes that are imagined together: whole groups, or a part of one that is larger than a batch may be."""

    first: int
    """Place of its first episode in the draw; names its noise."""
    tasks: tuple[Task, ...]
    labels: tuple[int, ...]
    """The group of each episode."""


@dataclass(frozen=True)
class Deal:
    """Batches that one process makes, so that all groups in them are its own."""

    batches: tuple[Batch, ...]


def deals(tasks: Sequence[Task], first_label: int, group_size: int, batch_size: int) -> list[Deal]:
    """The draw `tasks`, K = `group_size` episodes each, in batches of at most `batch_size`; deal i is made by process
    i modulo their number."""
    groups_each = max(batch_size // group_size, 1)
    dealt = []
    for start in range(0, len(tasks), groups_each):
        chosen = range(start, min(start + groups_each, len(tasks)))
        episodes = [(tasks[index], first_label + index) for index in chosen for _ in range(group_size)]
        batches = [
            Batch(
                start * group_size + first,
                tuple(task for task, _ in episodes[first : first + batch_size]),
                tuple(label for _, label in episodes[first : first + batch_size]),
            )
            for first in range(0, len(episodes), batch_size)
        ]
        dealt.append(Deal(tuple(batches)))
    return dealt


def check_deal(groups: int, group_size: int, batch_size: int, processes: int) -> None:
    """Raises `ConfigError` if a process would have nothing to imagine."""
    count = -(-groups // max(batch_size // group_size, 1))
    if count >= processes:
        return
    together = f"{groups} groups of {group_size} rollouts in batches of loop.imagine_batch_size={batch_size}"
    if groups < processes:
        advice = f"raise loop.tasks_per_iteration to {processes}, or use {groups} processes"
        # One group a batch is what always suffices; with larger ones, as many groups as processes are too few again.
        if batch_size // group_size > 1:
            advice += f"; either way set loop.imagine_batch_size to {group_size} or less"
    else:
        advice = f"set loop.imagine_batch_size to {groups // processes * group_size} or less"
    raise ConfigError(f"{together} are {count} batches, which leaves some of {processes} processes idle: {advice}.")
