"""The contract of datasets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from gymnast_core.errors import DataError, GymnastError
from gymnast_core.interfaces import Dataset
from gymnast_core.testing.component import check_component
from gymnast_core.testing.contract import Contract, instance, tensors_in
from gymnast_core.types import Episode, Task


def check_dataset(dataset: Dataset | Callable[[], Dataset], *, count: int = 3) -> list[str]:
    """Check `tasks` and `episodes`, whichever the dataset has, on its first and last `count` items.

    Raises the dataset's own `DataError` if what it was given holds neither.
    """
    subject = instance(dataset)
    contract = Contract(subject, Dataset)
    kinds: tuple[tuple[str, type, Callable[[Contract, Any, str], None]], ...] = (
        ("tasks", Task, _check_task),
        ("episodes", Episode, _check_episode),
    )
    own = [item for item in kinds if getattr(type(subject), item[0]) is not getattr(Dataset, item[0])]
    contract.expect(bool(own), "tasks", "the method tasks or episodes", "neither")
    refusals = []
    for method, kind, check in own:
        wanted = f"a sequence of {kind.__name__}s, or a DataError if there are none"
        with contract.working(method, wanted, passing=GymnastError):
            try:
                items = getattr(subject, method)()
            except DataError as error:
                refusals.append(error)
                continue
            _check_items(contract, method, kind, items, count, check)
    if len(refusals) == len(own):
        raise refusals[-1]  # not a fault of the plugin's, but of what it was given
    check_component(contract, subject)
    return contract.verified


def _check_items(
    contract: Contract, method: str, kind: type, items: Any, count: int, check: Callable[[Contract, Any, str], None]
) -> None:
    is_sequence = hasattr(items, "__len__") and hasattr(items, "__getitem__")
    contract.expect(is_sequence, method, "a sequence, with a length and items by index", type(items).__name__)
    size = len(items)
    contract.expect(size > 0, method, "at least one item, or a DataError", "an empty sequence")
    indices = sorted({*range(min(count, size)), *range(max(size - count, 0), size)})
    found = {index: items[index] for index in indices}
    for index, item in found.items():
        contract.expect(isinstance(item, kind), method, f"items of type {kind.__name__}", type(item).__name__)
        check(contract, item, f"item {index}'s")
    ids = [item.id for item in found.values()]
    contract.expect(len(set(ids)) == len(ids), method, "ids that are unique", ids)
    contract.verified.append(f"{method}: {size} of them, well formed")
    for index in reversed(indices):
        again, before = items[index], found[index]
        same = (again.id, again.instruction) == (before.id, before.instruction)
        same = same and all(map(_equal, tensors_in(again), tensors_in(before)))
        contract.expect(same, method, f"item {index} to be the same when read again", "another one")
    with contract.working(method, "an IndexError behind the end, where Python's loops stop"):
        try:
            behind = items[size]
        except IndexError:
            behind = None
    contract.expect(behind is None, method, f"an IndexError for item {size} of {size}", type(behind).__name__)
    contract.verified.append(f"{method}: items are the same whenever they are read")


def _check_task(contract: Contract, task: Task, whose: str) -> None:
    _check_frames(contract, "tasks", task.frames_THWC, task.actions_TA, task.instruction, whose)


def _check_episode(contract: Contract, episode: Episode, whose: str) -> None:
    contract.expect(episode.actions_TA is not None, "episodes", f"{whose} actions_TA", "None")
    _check_frames(contract, "episodes", episode.frames_THWC, episode.actions_TA, episode.instruction, whose)
    known = episode.success is None or isinstance(episode.success, bool)
    contract.expect(known, "episodes", f"{whose} success to be True, False or None", repr(episode.success))
    points = episode.points_TJ2
    fits = points is None or (points.ndim == 3 and points.shape[::2] == (len(episode.frames_THWC), 2))
    contract.expect(fits, "episodes", f"{whose} points_TJ2 of shape (T, J, 2)", points is not None and points.shape)


def _check_frames(
    contract: Contract, method: str, frames: torch.Tensor, actions: torch.Tensor | None, instruction: Any, whose: str
) -> None:
    contract.expect(isinstance(instruction, str), method, f"{whose} instruction to be text", repr(instruction))
    shape: Sequence[int] = frames.shape if frames.ndim == 4 else (1, *frames.shape[-3:-1])
    contract.tensor(frames, method, f"{whose} frames_THWC", (*shape[:3], 3), torch.uint8)
    contract.expect(shape[0] >= 1, method, f"{whose} frames_THWC to hold a frame", tuple(shape))
    if actions is None:
        contract.expect(shape[0] == 1, method, f"{whose} actions_TA between its {shape[0]} frames", "None")
        return
    wanted = (shape[0] - 1, actions.shape[-1])
    contract.tensor(actions, method, f"{whose} actions_TA, one fewer than frames", wanted, torch.float32)


def _equal(first: torch.Tensor, second: torch.Tensor) -> bool:
    # Points out of view are NaN.
    return first.shape == second.shape and torch.allclose(first.double(), second.double(), equal_nan=True)
