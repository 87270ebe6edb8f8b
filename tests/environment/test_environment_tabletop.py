"""The same world and oracle with the environment that ships with the project, if it is installed."""

from __future__ import annotations

import pytest
import torch

from gymnast_core.testing import check_reward_model, check_world_model
from gymnast_core.types import Rollout
from gymnast_environment.rewards import EnvironmentReward, RandomReward
from gymnast_environment.world import GymnasiumWorld

datasets = pytest.importorskip("gymnast_tabletop.datasets")


def test_tabletop_tasks_start_where_they_say_and_replay_to_the_same_end() -> None:
    config = datasets.TabletopTasks.Config(count=4, image_size=32, split="choosing")
    tasks = list(datasets.TabletopTasks(config).tasks())
    world = GymnasiumWorld(GymnasiumWorld.Config(first_frame_tolerance=0.0))
    actions_BLA = 0.02 * torch.randn(4, 16, 2, generator=torch.Generator().manual_seed(1)).clamp(-1, 1)
    state = world.reset(tasks)
    steps = [world.step(state, chunk) for chunk in actions_BLA.split(4, dim=1)]
    frames_BLVHWC = torch.cat([step.frames_BLVHWC for step in steps], 1)
    assert frames_BLVHWC.shape == (4, 16, 1, 32, 32, 3)
    again = world.step(world.reset(tasks), actions_BLA)
    assert torch.equal(again.frames_BLVHWC, frames_BLVHWC)
    outcomes = [step.outcome_BL for step in steps if step.outcome_BL is not None]
    assert again.outcome_BL is not None and torch.equal(torch.cat(outcomes, 1), again.outcome_BL)
    rollouts = [
        Rollout(
            task=task,
            group=0,
            frames_TVHWC=torch.cat([task.frames_TVHWC[-1:], frames_LVHWC]),
            actions_NLA=actions_LA.view(4, 4, 2),
            log_prob_NLD=torch.zeros(4, 4, 2),
            temperature=1.0,
        )
        for task, frames_LVHWC, actions_LA in zip(tasks, frames_BLVHWC, actions_BLA, strict=True)
    ]
    rewards = EnvironmentReward().score(rollouts)
    assert [reward.value for reward in rewards] == again.outcome_BL[:, -1].tolist()


def test_they_keep_the_public_contracts() -> None:
    tasks = list(datasets.TabletopTasks(datasets.TabletopTasks.Config(count=3, image_size=32)).tasks())
    assert check_world_model(GymnasiumWorld(), tasks=tasks, action_dim=2, image_size=32)
    for reward_model in (EnvironmentReward(), RandomReward()):
        assert check_reward_model(reward_model, tasks=tasks, image_size=32, action_dim=2)
