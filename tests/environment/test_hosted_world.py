"""The world model `gymnasium` and the judge `environment` over worker processes."""

from __future__ import annotations

import gc
from dataclasses import replace
from typing import Any

import plain_environment
import pytest
import torch
from two_view_environment import Watcher

from gymnast_core.config.typed import typed
from gymnast_core.errors import ConfigError
from gymnast_core.interfaces import Parts
from gymnast_core.rollouts.imagine import imagine
from gymnast_core.testing import check_reward_model, check_world_model
from gymnast_core.types import EnvironmentStart, Rollout, Task, one_camera
from gymnast_environment.hosting import Hosting
from gymnast_environment.rewards import EnvironmentReward
from gymnast_environment.view import View
from gymnast_environment.world import GymnasiumWorld

ACTIONS_SA = torch.tensor([[2.0, 0.0], [1.0, 1.0], [2.0, -1.0], [-1.0, 0.0]])


def make_task(seed: int, options: dict[str, Any] | None = None, **args: Any) -> Task:
    environment = plain_environment.Plain()
    observation, _ = environment.reset(seed=seed)
    return Task(
        f"plain-{seed}", "move the square", one_camera(torch.from_numpy(observation["image"])[None]),
        start=EnvironmentStart(plain_environment.ID, seed, options or {}, args),
    )  # fmt: skip


def world(**hosting: Any) -> GymnasiumWorld:
    return GymnasiumWorld(GymnasiumWorld.Config(hosting=Hosting(**{"workers": 2, **hosting}), check_resets=False))


def roll_out(world: GymnasiumWorld, tasks: list[Task]) -> list[Rollout]:
    policy = Playing(Watcher.Config(("camera",), proprio=None), ACTIONS_SA)
    generator = torch.Generator().manual_seed(0)
    return imagine(policy, world, tasks, horizon=len(ACTIONS_SA), temperature=1.0, generator=generator)


class Playing(Watcher):
    """Begins anew with every batch."""

    def act(self, observation: Any, **keywords: Any) -> Any:
        if 2 * len(self.shown) == len(ACTIONS_SA):
            self.shown = []
        return super().act(observation, **keywords)


def test_more_tasks_than_environments() -> None:
    tasks = [make_task(seed) for seed in range(5)]
    away, here = world(max_environments=2), world(workers=0)
    assert (away.most_episodes(tasks), here.most_episodes(tasks)) == (2, None)
    found, expected = roll_out(away, tasks), roll_out(here, tasks)
    for one, other in zip(found, expected, strict=True):
        assert one.task is other.task and torch.equal(one.frames_TVHWC, other.frames_TVHWC)
        assert one.outcome_S is not None and other.outcome_S is not None and torch.equal(one.outcome_S, other.outcome_S)
    assert {rollout.outcome for rollout in found} == {0.0, 1.0}
    away.close()


def test_a_crash_is_the_rollout_s_error() -> None:
    ours = world()
    broken = make_task(2, options={"fault": "raise"})
    rollouts = roll_out(ours, [make_task(0), make_task(1, fault="segfault"), broken])
    assert rollouts[0].error is None and rollouts[0].outcome is not None
    assert "SIGSEGV" in str(rollouts[1].error) and "the table collapsed" in str(rollouts[2].error)
    assert rollouts[1].outcome is rollouts[2].outcome is None
    assert torch.equal(rollouts[2].frames_TVHWC, broken.frames_TVHWC.expand(5, -1, -1, -1, -1))
    ours.close()


def test_they_keep_the_public_contracts() -> None:
    ours = world(max_environments=4)
    tasks = [make_task(seed) for seed in range(3)]
    assert "states alive at once are independent" in check_world_model(ours, tasks=tasks, action_dim=2)
    ours.close()
    judge = EnvironmentReward(EnvironmentReward.Config(hosting=Hosting(workers=2), check_resets=False))
    check_reward_model(judge, tasks=tasks, action_dim=2)
    judge.close()


def replays(config: EnvironmentReward.Config, rollouts: list[Rollout], beside: GymnasiumWorld | None = None) -> Any:
    judge = EnvironmentReward(config)
    judge.attach(Parts(world_model=beside, reward_model=judge))
    rewards = judge.score(rollouts)
    judge.close()
    return rewards


def test_replays_share_the_world_s_environments() -> None:
    ours = world(max_environments=2)
    rollouts = roll_out(ours, [make_task(seed) for seed in range(5)])
    gc.collect()
    assert ours.environments._workers.collect() is None
    before = {host._process.pid for host in ours.environments._workers._idle}  # type: ignore[attr-defined]
    config = EnvironmentReward.Config(always_replay=True, check_resets=False)
    rewards = replays(config, rollouts, ours)
    assert [reward.value for reward in rewards] == [rollout.outcome for rollout in rollouts]
    assert all("replayed in" in reward.rationale for reward in rewards)
    after = {host._process.pid for host in ours.environments._workers._idle}  # type: ignore[attr-defined]
    assert len(before) == 2 and before == after
    ours.close()
    elsewhere = replace(config, view=View(success_key="outcomes.go down"), hosting=Hosting(workers=2))
    down = [reward.value for reward in replays(elsewhere, rollouts, ours)]
    assert down != [reward.value for reward in rewards]


def test_what_cannot_be_replayed_costs_no_other_rollout() -> None:
    sound, *others = roll_out(world(workers=0), [make_task(0), make_task(1), make_task(2), make_task(3), make_task(4)])
    crash, lost, moved, wide = others

    def starting(rollout: Rollout, **changes: Any) -> Rollout:
        start = replace(rollout.task.start, **changes)  # type: ignore[type-var]
        return replace(rollout, task=replace(rollout.task, start=start))

    rollouts = [
        starting(crash, args={"fault": "exit"}),
        starting(lost, id="nowhere:Lost-v0"),
        starting(moved, seed=99),
        replace(wide, actions_NLA=torch.zeros(2, 2, 3)),
        sound,
        replace(sound, actions_NLA=sound.actions_NLA[:1] * 0),
    ]
    config = EnvironmentReward.Config(always_replay=True, check_resets=False, hosting=Hosting(workers=2))
    rewards = replays(config, rollouts)
    for reward, message in zip(rewards, ("exit code 7", "nowhere", "first_frame", "3 dimensions"), strict=False):
        assert message in str(reward.error)
    assert [reward.value for reward in rewards[4:]] == [sound.outcome, 0.0]


def test_sections_of_a_config() -> None:
    values = {
        "view": {"cameras": {"front": "a.rgb"}, "proprio": ["b"], "proprio_dim": 4, "flip": "vertical"},
        "hosting": {"python": "/envs/x/bin/python", "variables": {"MUJOCO_GL": "egl"}, "max_environments": 4},
    }
    config = typed(GymnasiumWorld.Config, values)
    assert config.view == View({"front": "a.rgb"}, proprio=["b"], proprio_dim=4, flip="vertical")
    assert config.hosting == Hosting("/envs/x/bin/python", variables={"MUJOCO_GL": "egl"}, max_environments=4)
    judge = typed(EnvironmentReward.Config, values)
    assert (judge.view, judge.hosting) == (config.view, config.hosting)
    assert typed(EnvironmentReward.Config, {}).view is None


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"view": {"flip": "sideways"}}, "flip"),
        ({"view": {"rotate": 45}}, "0, 90, 180 or 270"),
        ({"view": {"size": 0}}, "view.size"),
        ({"view": {"proprio_dim": 3}}, "give both"),
        ({"hosting": {"max_environments": 0}}, "hosting.max_environments"),
        ({"hosting": {"step_timeout_s": 0}}, "hosting.step_timeout_s"),
        ({"image_key": "top"}, "image_key"),
    ],
)
def test_values_that_no_config_takes(values: dict[str, Any], message: str) -> None:

    with pytest.raises(ConfigError, match=message):
        typed(GymnasiumWorld.Config, values)
