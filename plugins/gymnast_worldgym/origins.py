"""Which episodes of a batch start alike, so that their context is encoded once."""

from __future__ import annotations

from collections.abc import Sequence

from gymnast_core.types import Task


def distinct_tasks(tasks: Sequence[Task]) -> tuple[list[Task], list[int]]:
    """The tasks that start differently, and for each given task the index of its like among them."""
    index: dict[tuple[bytes, bytes], int] = {}
    distinct: list[Task] = []
    origin = []
    for task in tasks:
        moves = b"" if task.actions_TA is None else task.actions_TA.cpu().contiguous().numpy().tobytes()
        key = (task.frames_TVHWC.cpu().contiguous().numpy().tobytes(), moves)
        if key not in index:
            index[key] = len(distinct)
            distinct.append(task)
        origin.append(index[key])
    return distinct, origin
