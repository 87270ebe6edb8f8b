"""What a snapshot keeps of rollouts comes back as it was."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from seeing import CAMERAS, CountingWorld, SeeingPolicy, frames, task

from gymnast_core.rollouts.imagine import imagine
from gymnast_core.rollouts.state import reward_from_state, rollout_from_state, to_state
from gymnast_core.runs.snapshot import load_latest_snapshot, save_snapshot
from gymnast_core.seeds import seeded_generator
from gymnast_core.types import EnvironmentStart, Episode, Reward


def kept(folder: Path, value: Any) -> Any:
    """Through the files of a snapshot."""
    save_snapshot(folder, 1, {"it": to_state(value)})
    state = load_latest_snapshot(folder)
    assert state is not None
    return state["it"]


def same(first: Any, second: Any) -> bool:
    if isinstance(first, torch.Tensor):
        return isinstance(second, torch.Tensor) and torch.equal(first, second)
    if hasattr(first, "__dataclass_fields__"):
        return type(first) is type(second) and all(same(value, vars(second)[key]) for key, value in vars(first).items())
    return first == second


def test_a_rollout_with_everything_that_a_task_can_say(tmp_path: Path) -> None:
    shown = torch.stack([frames(step, 3) for step in range(3)])
    expert = Episode("expert", "go", shown, torch.zeros(2, 1), CAMERAS, torch.ones(3, 2), 5.0, True, {"go": True})
    start = EnvironmentStart("a/World-v0", 7, {"light": 0.5, "names": ["a", "b"]}, {"size": 32})
    expert = replace(expert, start=start)
    full = replace(task("a", 3), start=start, expert=expert, partial_credit_criteria="half way")
    policy, generator = SeeingPolicy(), seeded_generator(1)
    (rollout,) = imagine(policy, CountingWorld(), [full], horizon=4, temperature=0.5, generator=generator)
    back = rollout_from_state(kept(tmp_path, rollout))
    assert same(rollout, back)
    assert back.cameras == CAMERAS and back.task.cameras == CAMERAS
    assert back.task.expert is not None and back.task.expert.cameras == CAMERAS
    assert back.task.start == start


@pytest.mark.parametrize(
    "reward",
    [
        Reward(1.0, torch.tensor([0.0, 1.0]), 0.5, "because", None, 0.25, 2),
        Reward(None, error="no idea", cost_usd=0.5),
    ],
)
def test_a_reward(reward: Reward, tmp_path: Path) -> None:
    assert same(reward, reward_from_state(kept(tmp_path, reward)))


def test_what_no_file_can_hold_is_named() -> None:
    with pytest.raises(TypeError, match=r"A snapshot cannot hold a set: \{1\}"):
        to_state({"a": [{1}]})
