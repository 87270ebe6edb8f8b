"""The check of datasets looks at every task, at cameras and at slices."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch

from gymnast_core.errors import ContractError
from gymnast_core.interfaces import Dataset
from gymnast_core.testing import check_dataset
from gymnast_core.types import EnvironmentStart, Episode, Task

FRAMES = torch.zeros(1, 2, 8, 8, 3, dtype=torch.uint8)
TASK = Task("0", "go", FRAMES, ("front", "wrist"), proprio_TP=torch.zeros(1, 3), start=EnvironmentStart("x", 0))
EPISODE = Episode("0", "go", FRAMES.repeat(3, 1, 1, 1, 1), torch.zeros(2, 4), ("front", "wrist"), fps=5.0)


class Made(Dataset):
    """The items that it is given."""

    api_version = 2

    @dataclass(frozen=True)
    class Config:
        """Nothing to say."""

    def __init__(self, tasks: Any = None, episodes: Any = None) -> None:
        self.config = self.Config()
        self._tasks, self._episodes = tasks, episodes

    def tasks(self) -> Any:
        return super().tasks() if self._tasks is None else self._tasks

    def episodes(self) -> Any:
        return super().episodes() if self._episodes is None else self._episodes


class Unsliced(list):
    """Gives items by number only, or slices in its own way."""

    def __init__(self, items: list, cut: Any = None) -> None:
        super().__init__(items)
        self._cut = cut

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice) and self._cut is None:
            raise TypeError("numbers only")
        return self._cut(self, index) if isinstance(index, slice) else super().__getitem__(index)


def tasks(count: int = 9, place: int = 4, **changes: Any) -> list[Task]:
    """Tasks, of which the one at `place` is changed."""
    made = [replace(TASK, id=str(i)) for i in range(count)]
    made[place] = replace(made[place], **changes)
    return made


def test_sound_items_pass() -> None:
    for count in (1, 2, 9):
        verified = check_dataset(Made(tasks(count, place=0), [replace(EPISODE, id=str(i)) for i in range(count)]))
        assert f"tasks: {count} of them, {count} read, well formed" in verified
        assert f"episodes: {count} of them, {min(count, 6)} read, well formed" in verified
        assert "tasks: slices are sequences of the same items" in verified
    assert check_dataset(Made(tasks()), count=1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"id": "7"}, "ids that are unique; got '7' for the items 4 and 7"),
        ({"instruction": "  "}, "item 4's instruction to be text that says something"),
        ({"cameras": ("wrist", "front")}, "the same cameras in the same order in every item"),
        ({"cameras": ("front", "front")}, "item 4's cameras by different names"),
        ({"cameras": ["front", "wrist"]}, "item 4's cameras by different names"),
        ({"proprio_TP": torch.zeros(1, 4)}, r"equally many readings \(proprio_TP\) in every item"),
        ({"proprio_TP": None}, r"equally many readings \(proprio_TP\) in every item"),
        ({"proprio_TP": torch.zeros(2, 3)}, r"item 4's proprio_TP, one a frame to be \(1, 3\)"),
        ({"proprio_TP": torch.zeros(1, 3, dtype=torch.float64)}, "proprio_TP.*float32; got .*float64"),
        ({"start": {"id": "x"}}, "item 4's start to be an EnvironmentStart or None"),
        ({"expert": TASK}, "item 4's expert to be an Episode or None; got Task"),
        ({"expert": replace(EPISODE, fps=0.0)}, "item 4's expert's fps"),
        ({"frames_TVHWC": FRAMES.repeat(2, 1, 1, 1, 1), "proprio_TP": None}, "actions_TA between its 2 frames"),
    ],
)
def test_a_task_in_the_middle_is_read(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ContractError, match=message):
        check_dataset(Made(tasks(**changes)), count=2)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"instruction": ""}, "instruction to be text that says something"),
        ({"fps": -1.0}, "fps to be frames a second"),
        ({"outcomes": {"go": 1}}, "outcomes to be instruction -> True or False"),
        ({"success": 1}, "success to be True, False or None"),
        ({"actions_TA": torch.zeros(3, 4)}, "one fewer than frames to be"),
    ],
)
def test_an_episode_that_is_wrong(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ContractError, match=message):
        check_dataset(Made(episodes=[replace(EPISODE, **changes)]))


@pytest.mark.parametrize(
    "cut",
    [None, lambda items, part: None, lambda items, part: iter(list(items)[part]), lambda items, part: list(items)],
)
def test_slices_that_are_no_sequences_of_the_items(cut: Any) -> None:
    with pytest.raises(ContractError, match="a sequence of 2 items for the slice"):
        check_dataset(Made(Unsliced(tasks(), cut)))
