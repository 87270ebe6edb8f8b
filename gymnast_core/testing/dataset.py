"""The contract of datasets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from gymnast_core.errors import DataError, GymnastError
from gymnast_core.interfaces import Dataset
from gymnast_core.testing.component import check_component
from gymnast_core.testing.contract import Contract, instance, tensors_in
from gymnast_core.types import EnvironmentStart, Episode, Task

Item = Task | Episode


def check_dataset(dataset: Dataset | Callable[[], Dataset], *, count: int = 3) -> list[str]:
    """Check `tasks` and `episodes`, whichever the dataset has: every task, and the first and last `count` episodes.

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
    ends = sorted({*range(min(count, size)), *range(max(size - count, 0), size)})
    kept, about = {}, []
    # Tasks are read to the last one, since any two may share an id; of episodes, which are large, the ends.
    for index in range(size) if kind is Task else ends:
        item = items[index]
        contract.expect(isinstance(item, kind), method, f"items of type {kind.__name__}", type(item).__name__)
        check(contract, item, f"item {index}'s")
        about.append((item.id, item.cameras, None if item.proprio_TP is None else item.proprio_TP.shape[-1]))
        if index in ends:
            kept[index] = item
    _check_together(contract, method, about)
    contract.verified.append(f"{method}: {size} of them, {len(about)} read, well formed")
    _check_reading(contract, method, items, kept)


def _check_together(contract: Contract, method: str, about: Sequence[tuple[str, tuple[str, ...], int | None]]) -> None:
    """What items owe each other: ids of their own, the same cameras and readings."""
    places: dict[str, int] = {}
    for place, (name, _, _) in enumerate(about):
        twice = f"{name!r} for the items {places.get(name)} and {place} of those read"
        contract.expect(name not in places, method, "ids that are unique", twice)
        places[name] = place
    cameras = {cameras for _, cameras, _ in about}
    contract.expect(len(cameras) == 1, method, "the same cameras in the same order in every item", sorted(cameras))
    readings = {width for _, _, width in about}
    contract.expect(len(readings) == 1, method, "equally many readings (proprio_TP) in every item, or none", readings)


def _check_reading(contract: Contract, method: str, items: Any, kept: dict[int, Item]) -> None:
    """That an item is the same whenever and however it is read."""
    size = len(items)
    for index in reversed(kept):
        same = _same(items[index], kept[index])
        contract.expect(same, method, f"item {index} to be the same when read again", "another one")
    with contract.working(method, "an IndexError behind the end, where Python's loops stop"):
        try:
            behind = items[size]
        except IndexError:
            behind = None
    contract.expect(behind is None, method, f"an IndexError for item {size} of {size}", type(behind).__name__)
    contract.verified.append(f"{method}: items are the same whenever they are read")
    for part in (slice(0, min(2, size)), slice(max(size - 2, 0), size), slice(None, None, max(size - 1, 1))):
        wanted = range(size)[part]
        if not kept.keys() >= set(wanted):
            continue
        words = f"a sequence of {len(wanted)} items for the slice [{part.start}:{part.stop}:{part.step}]"
        with contract.working(method, words):
            found = items[part]
            same = len(found) == len(wanted) and all(
                _same(found[place], kept[index]) for place, index in enumerate(wanted)
            )
        contract.expect(same, method, f"{words}, those that indices give", "other ones")
    contract.verified.append(f"{method}: slices are sequences of the same items")


def _check_task(contract: Contract, task: Task, whose: str) -> None:
    _check_frames(contract, "tasks", task, whose)
    known = task.start is None or isinstance(task.start, EnvironmentStart)
    contract.expect(known, "tasks", f"{whose} start to be an EnvironmentStart or None", repr(task.start))
    known = task.expert is None or isinstance(task.expert, Episode)
    contract.expect(known, "tasks", f"{whose} expert to be an Episode or None", type(task.expert).__name__)
    if task.expert is not None:
        _check_episode(contract, task.expert, f"{whose} expert's", "tasks")


def _check_episode(contract: Contract, episode: Episode, whose: str, method: str = "episodes") -> None:
    contract.expect(episode.actions_TA is not None, method, f"{whose} actions_TA", "None")
    _check_frames(contract, method, episode, whose)
    known = episode.success is None or isinstance(episode.success, bool)
    contract.expect(known, method, f"{whose} success to be True, False or None", repr(episode.success))
    known = episode.fps is None or episode.fps > 0
    contract.expect(known, method, f"{whose} fps to be frames a second, or None", repr(episode.fps))
    known = all(isinstance(text, str) and isinstance(done, bool) for text, done in episode.outcomes.items())
    contract.expect(known, method, f"{whose} outcomes to be instruction -> True or False", dict(episode.outcomes))
    points = episode.points_TJ2
    fits = points is None or (points.ndim == 3 and points.shape[::2] == (len(episode.frames_TVHWC), 2))
    contract.expect(fits, method, f"{whose} points_TJ2 of shape (T, J, 2)", points is not None and points.shape)


def _check_frames(contract: Contract, method: str, item: Item, whose: str) -> None:
    says = isinstance(item.instruction, str) and bool(item.instruction.strip())
    contract.expect(says, method, f"{whose} instruction to be text that says something", repr(item.instruction))
    cameras = item.cameras
    named = isinstance(cameras, tuple) and all(isinstance(name, str) for name in cameras)
    contract.expect(named and len(set(cameras)) == len(cameras), method, f"{whose} cameras by different names", cameras)
    frames, actions = item.frames_TVHWC, item.actions_TA
    shape: Sequence[int] = frames.shape if frames.ndim == 5 else (1, len(cameras), *frames.shape[-3:-1])
    contract.tensor(frames, method, f"{whose} frames_TVHWC", (*shape[:4], 3), torch.uint8)
    contract.expect(shape[0] >= 1, method, f"{whose} frames_TVHWC to hold a frame", tuple(shape))
    if item.proprio_TP is not None:
        wanted = (shape[0], item.proprio_TP.shape[-1])
        contract.tensor(item.proprio_TP, method, f"{whose} proprio_TP, one a frame", wanted, torch.float32)
    if actions is None:
        contract.expect(shape[0] == 1, method, f"{whose} actions_TA between its {shape[0]} frames", "None")
        return
    wanted = (shape[0] - 1, actions.shape[-1])
    contract.tensor(actions, method, f"{whose} actions_TA, one fewer than frames", wanted, torch.float32)


def _same(first: Item, second: Item) -> bool:
    same = (first.id, first.instruction, first.cameras) == (second.id, second.instruction, second.cameras)
    mine, others = tensors_in(first), tensors_in(second)
    return same and len(mine) == len(others) and all(map(_equal, mine, others))


def _equal(first: torch.Tensor, second: torch.Tensor) -> bool:
    # Points out of view are NaN.
    return first.shape == second.shape and torch.allclose(first.double(), second.double(), equal_nan=True)
