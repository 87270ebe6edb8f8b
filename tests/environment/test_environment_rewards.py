"""The oracle and the control."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from slider_environment import make_rollout, make_task

from gymnast_core.errors import ConfigError
from gymnast_core.plugins.registry import registries
from gymnast_core.types import Reward, Rollout
from gymnast_environment.environments import Environments
from gymnast_environment.rewards import EnvironmentReward, RandomReward
from gymnast_environment.view import View
from gymnast_environment.world import GymnasiumWorld


def test_an_outcome_that_the_world_reported_is_the_reward() -> None:
    rollouts = [make_rollout(make_task(0), [0.0, 0.0], outcome=outcome) for outcome in (1.0, 0.25)]
    assert [reward.value for reward in EnvironmentReward().score(rollouts)] == [1.0, 0.25]


def test_the_latest_outcome_that_the_world_knew_is_the_reward() -> None:
    nan = float("nan")
    known = replace(make_rollout(make_task(3), [4.0, 4.0]), outcome_S=torch.tensor([0.25, nan]))
    unknown = replace(known, outcome_S=torch.tensor([nan, nan]))
    rewards = EnvironmentReward().score([known, unknown])
    assert [reward.value for reward in rewards] == [0.25, 1.0]
    assert "reported" in rewards[0].rationale and "replayed" in rewards[1].rationale


def test_imagined_rollouts_are_replayed() -> None:
    rollouts = [make_rollout(make_task(3), [4.0, 4.0, 1.0, 0.0]), make_rollout(make_task(3), [1.0, 0.0])]
    rewards = EnvironmentReward().score(rollouts)
    assert [reward.value for reward in rewards] == [1.0, 0.0]
    assert all("replayed" in reward.rationale for reward in rewards)


def test_of_a_success_that_ends_the_environment_no_later_action_counts() -> None:
    # It begins between 0 and 3 and is over at the wall, 15; success begins at 8.
    ends, goes_on, fails = [4.0] * 8, [4.0, 4.0, 1.0, 0.0], [4.0, -4.0] * 4
    rewards = EnvironmentReward().score([make_rollout(make_task(3), actions) for actions in (ends, goes_on, fails)])
    assert [reward.value for reward in rewards] == [1.0, 1.0, 0.0]
    world = GymnasiumWorld(GymnasiumWorld.Config())
    step = world.step(world.reset([make_task(3)]), torch.tensor([[[action] for action in ends]]))
    assert step.ended_BL is not None
    first = 1 + step.ended_BL[0].tolist().index(True)
    assert first < len(ends) and [reward.finish_step for reward in rewards] == [first, None, None]


def test_replay_agrees_with_the_world_it_came_from() -> None:
    world = GymnasiumWorld(GymnasiumWorld.Config())
    tasks = [make_task(seed) for seed in range(6)]
    actions_BLA = torch.randn(6, 4, 1, generator=torch.Generator().manual_seed(0)) * 3
    outcome_BL = world.step(world.reset(tasks), actions_BLA).outcome_BL
    assert outcome_BL is not None
    rollouts = [
        make_rollout(task, actions_LA.flatten().tolist(), outcome=outcome)
        for task, actions_LA, outcome in zip(tasks, actions_BLA, outcome_BL[:, -1].tolist(), strict=True)
    ]
    replaying = EnvironmentReward(EnvironmentReward.Config(always_replay=True))
    expected = [rollout.outcome for rollout in rollouts]
    assert [reward.value for reward in replaying.score(rollouts)] == expected
    assert len(set(expected)) == 2


def test_replay_asks_what_the_task_asks() -> None:
    """The tasks' view says what counts: success at any step, and each action held for two of the environment's."""
    actions = [4.0, 4.0, -8.0, -8.0]  # there and away again
    rollout = make_rollout(make_task(3), actions)
    assert rollout.task.start is not None

    def under(view: View | None) -> Rollout:
        start = replace(rollout.task.start, view=None if view is None else view.told())
        return replace(rollout, task=replace(rollout.task, start=start))

    for view in (View(success="any"), View(action_repeat=2, success="any"), View()):
        world = GymnasiumWorld(GymnasiumWorld.Config(view=view))
        expected = world.step(world.reset([rollout.task]), rollout.actions_NLA.flatten(0, 1)[None]).outcome_BL
        assert expected is not None
        judge = EnvironmentReward()
        mixed = judge.score([under(view), under(None), under(View(success="any"))])
        assert mixed[0].value == float(expected[0, -1])
        assert [reward.value for reward in mixed[1:]] == [0.0, 1.0]
        # What the judge itself is told goes first.
        assert EnvironmentReward(EnvironmentReward.Config(view=View())).score([under(view)])[0].value == 0.0
        judge.close()


def test_a_view_that_says_more_than_can_be_had_costs_no_other_rollout() -> None:
    """Of two cameras that were recorded one was read; another task's view is of a later edition."""
    rollout = make_rollout(make_task(3), [4.0, 4.0])
    assert rollout.task.start is not None

    def told(view: dict[str, object], cameras: tuple[str, ...]) -> Rollout:
        start = replace(rollout.task.start, view=view)
        return replace(rollout, task=replace(rollout.task, start=start, cameras=cameras), cameras=cameras)

    both = View(cameras={"front": "image", "wrist": "image_wrist"}).told()
    partly, later = told(both, ("front",)), told({**both, "exposure": 3}, ("front",))
    rewards = EnvironmentReward().score([partly, later, rollout])
    assert [reward.value for reward in rewards] == [1.0, None, 1.0], rewards
    assert "Task 'slide-3'" in rewards[1].error and "exposure" in rewards[1].error


def test_environments_are_replayed_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of several kinds not all can be alive; every reward is its own rollout's all the same."""
    kinds = "aaaabbbcc"
    rollouts = []
    for place, kind in enumerate(kinds):
        task = make_task(place)
        assert task.start is not None
        rollouts.append(make_rollout(replace(task, start=replace(task.start, args={"kind": kind})), [4.0, 4.0]))
    played = []

    def replay(_self: EnvironmentReward, _where: Environments, some: Sequence[Rollout]) -> list[Reward]:
        seeds = [rollout.task.start.seed for rollout in some if rollout.task.start is not None]
        played.extend(seeds)
        return [Reward(seed / 10) for seed in seeds]

    monkeypatch.setattr(EnvironmentReward, "_replay", replay)
    rewards = EnvironmentReward().score(rollouts)
    assert "".join(kinds[seed] for seed in played) == "abcabcaba"
    assert [reward.value for reward in rewards] == [seed / 10 for seed in range(9)]


def test_what_cannot_be_replayed_is_an_error_and_costs_no_other_rollout() -> None:
    lost = make_rollout(replace(make_task(0), start=None), [4.0, 4.0])
    silent = make_rollout(make_task(0), [4.0, 4.0])
    rewards = EnvironmentReward().score([lost, silent])
    assert rewards[0].value is None and "no environment" in rewards[0].error
    assert rewards[1].value is not None
    named = EnvironmentReward(EnvironmentReward.Config(view=View(success_key="is_success"))).score([silent])
    assert named[0].value is None and "is_success" in named[0].error


def test_chance_is_repeatable_and_independent_of_order() -> None:
    rollouts = [make_rollout(make_task(seed), [float(i), 0.5]) for seed in range(2) for i in range(200)]
    values = [reward.value for reward in RandomReward().score(rollouts)]
    backwards = [reward.value for reward in RandomReward().score(rollouts[::-1])]
    assert backwards[::-1] == values and set(values) == {0.0, 1.0}
    other = RandomReward(RandomReward.Config(seed=1)).score(rollouts)
    assert [reward.value for reward in other] != values


@pytest.mark.parametrize("probability", [0.0, 0.2, 1.0])
def test_chance_has_the_given_rate(probability: float) -> None:
    rollouts = [make_rollout(make_task(0), [i / 100, 0.0]) for i in range(1000)]
    rewards = RandomReward(RandomReward.Config(probability=probability)).score(rollouts)
    rate = sum(reward.value for reward in rewards) / len(rewards)
    assert rate == pytest.approx(probability, abs=4 * (probability * (1 - probability) / 1000) ** 0.5)


def test_a_probability_beyond_one_is_an_error() -> None:
    with pytest.raises(ConfigError, match="probability"):
        registries().reward_models.build("random", {"probability": 1.5})
