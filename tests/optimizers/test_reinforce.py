"""REINFORCE++: returns, KL in the reward and normalisation over the whole batch, by hand and as laws."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from made import judged
from several import in_threads
from torch import Tensor

from gymnast_core.errors import ConfigError
from gymnast_core.interfaces import Parts
from gymnast_core.learning import Judged
from gymnast_core.testing import check_optimizer
from gymnast_core.testing.made_judged import StandInPolicy, decided, tasks_for
from gymnast_core.types import Reward
from gymnast_optimizers.reinforce import ReinforcePlusPlus

REWARDS = st.lists(
    st.lists(st.sampled_from([0.0, 0.25, 1.0, math.nan]), min_size=3, max_size=3), min_size=1, max_size=4
)


def whitened(values: Tensor) -> Tensor:
    return (values - values.mean()) / values.std(correction=0)


@pytest.mark.parametrize("config", [{}, {"baseline": "group"}, {"reward_kl": 0.1}, {"kl_coefficient": 0.1}])
def test_it_keeps_the_contract(config: dict) -> None:
    assert check_optimizer(ReinforcePlusPlus(ReinforcePlusPlus.Config(group_size=3, **config)))


def test_advantages_are_whitened_over_the_whole_batch() -> None:
    found = ReinforcePlusPlus().advantages(judged([[1.0, 0.0, 0.0, 0.0], [1.0, 1.0, math.nan, 0.5]])).advantages_BS
    wanted = whitened(torch.tensor([1.0, 0.0, 0.0, 0.0, 1.0, 1.0, 0.5]))
    torch.testing.assert_close(found[[0, 1, 2, 3, 4, 5, 7], 0], wanted)
    assert not found[6].any()


def test_a_longer_trajectory_weighs_more_in_the_mean() -> None:
    """Actions are counted: 1 that ended after one action of two, and 0 that did not."""
    found = ReinforcePlusPlus().advantages(judged([[1.0, 0.0]], finish_B=[1, None])).advantages_BS
    wanted = whitened(torch.tensor([1.0, 0.0, 0.0]))
    torch.testing.assert_close(found, torch.stack([torch.stack([wanted[0], torch.tensor(0.0)]), wanted[1:]]))


def test_rewards_of_each_action_count_from_that_action_on() -> None:
    groups = judged([[1.0, 0.0]], steps=3)
    steps = torch.tensor([0.5, 0.25, 0.25])
    groups = replace(groups, rewards=(replace(groups.rewards[0], step_values_S=steps), groups.rewards[1]))
    found = ReinforcePlusPlus().advantages(groups).advantages_BS
    torch.testing.assert_close(found.flatten(), whitened(torch.tensor([1.0, 0.5, 0.25, 0.0, 0.0, 0.0])))


def test_the_baseline_of_the_group_is_taken_off_first() -> None:
    """Groups of mean 1/2 and 3/4 (one of them not judged): centred ±1/2, then 1/4, 1/4, -1/2, over one spread."""
    config = ReinforcePlusPlus.Config(baseline="group")
    found = ReinforcePlusPlus(config).advantages(judged([[1.0, 0.0, math.nan], [1.0, 1.0, 0.25]])).advantages_BS[:, 0]
    wanted = whitened(torch.tensor([0.5, -0.5, 0.25, 0.25, -0.5]))
    torch.testing.assert_close(found[[0, 1, 3, 4, 5]], wanted)


@given(REWARDS, st.floats(-2, 2))
def test_neither_a_shift_nor_the_scale_of_rewards_changes_anything(values: list[list[float]], shift: float) -> None:
    def found(factor: float, added: float) -> Tensor:
        moved = [[value * factor + added for value in group] for group in values]
        return ReinforcePlusPlus().advantages(judged(moved)).advantages_BS

    torch.testing.assert_close(found(1.0, shift), found(1.0, 0.0), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(found(0.5, 0.0), found(1.0, 0.0), atol=1e-4, rtol=1e-4)


@given(REWARDS, st.integers(1, 4))
def test_the_batch_is_that_of_all_processes(values: list[list[float]], cut: int) -> None:
    whole = ReinforcePlusPlus().advantages(judged(values)).advantages_BS

    def job(share: list[list[float]]):
        def advantages(processes):
            optimizer = ReinforcePlusPlus()
            optimizer.attach(Parts(processes=processes))
            return optimizer.advantages(judged(share)).advantages_BS.reshape(-1)

        return advantages

    together = torch.cat(in_threads([job(values[:cut]), job(values[cut:])]))
    torch.testing.assert_close(together, whole.reshape(-1), atol=1e-5, rtol=1e-5)


def test_equal_rewards_teach_nothing() -> None:
    assert not ReinforcePlusPlus().advantages(judged([[0.3, 0.3], [0.3, 0.3]])).advantages_BS.any()


def test_a_group_of_one_has_nobody_to_be_compared_with() -> None:
    with pytest.raises(ConfigError, match="group_size is 1: nothing would be learned"):
        ReinforcePlusPlus(ReinforcePlusPlus.Config(baseline="group", group_size=1))
    assert ReinforcePlusPlus(ReinforcePlusPlus.Config(group_size=1)).group_size == 1


def test_every_group_that_was_judged_is_kept() -> None:
    groups = judged([[1.0, 1.0], [0.0, math.nan], [math.nan, math.nan]])
    assert ReinforcePlusPlus().keep(groups).tolist() == [True, True, False]


class Drifted(StandInPolicy):
    """Thinks each of its actions likelier than before."""

    drift = 0.0

    def evaluate(self, *args, **keys):
        found = super().evaluate(*args, **keys)
        return replace(found, log_prob_BLD=found.log_prob_BLD + self.drift)


def test_each_action_pays_for_itself_and_for_those_after_it() -> None:
    """The policy has drifted by 0.1 nats a factor, of which an action has two: 0.2·(6, 5, 4, 3, 2, 1) nats to come."""
    policy, optimizer = Drifted(), ReinforcePlusPlus(ReinforcePlusPlus.Config(reward_kl=0.5))
    optimizer.attach(Parts(policy=policy))
    assert optimizer.extra_modules(policy) == {}
    rollouts = decided(policy, tasks_for(policy), 2)
    rollouts = [replace(r, log_prob_NLD=r.log_prob_NLD + 0.1) for r in rollouts]
    groups = Judged(tuple(rollouts), (Reward(1.0), Reward(0.0, finish_step=2)), 2)
    found = optimizer.advantages(groups).advantages_BS
    to_come = 0.5 * 0.2 * torch.tensor([6.0, 5, 4, 3, 2, 1])
    wanted = whitened(torch.cat([1.0 - to_come, -0.5 * 0.2 * torch.tensor([2.0, 1.0])]))
    torch.testing.assert_close(torch.cat([found[0], found[1, :2]]), wanted, atol=1e-4, rtol=1e-4)
    assert not found[1, 2:].any()


def test_the_initial_policy_stays_as_it_was() -> None:
    policy, optimizer = StandInPolicy(), ReinforcePlusPlus(ReinforcePlusPlus.Config(reward_kl=0.5))
    optimizer.attach(Parts(policy=policy))
    optimizer.extra_modules(policy)
    rollouts = decided(policy, tasks_for(policy), 2)
    groups = Judged(tuple(rollouts), (Reward(0.5), Reward(0.5)), 2)
    # Nothing has moved and rewards are alike; then what acts moves, and each action is charged for it.
    assert not optimizer.advantages(groups).advantages_BS.any()
    with torch.no_grad():
        policy.decide.add_(0.5)
    moved = tuple(decided(policy, tasks_for(policy), 2))
    assert optimizer.advantages(replace(groups, rollouts=moved)).advantages_BS.any()
