"""Generalised advantages against numbers worked out by hand, and against the definitions that they generalise."""

from __future__ import annotations

import math

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from gymnast_optimizers.gae import generalised_advantages, of_decisions

NOTHING = torch.zeros(1)


def gae(
    rewards: list[float], values: list[float], *, ended: int | None = None, last: float = 0.0, discount: float = 1.0,
    trace: float = 1.0,
) -> list[float]:  # fmt: skip
    """Of one episode that ended after decision `ended`."""
    counted = torch.arange(len(rewards)) < (ended or len(rewards))
    found = generalised_advantages(
        torch.tensor([rewards]), torch.tensor([values]), counted[None], last_B=torch.tensor([last]),
        discount=discount, trace=trace,
    )  # fmt: skip
    return found[0].tolist()


def close(found: list[float], wanted: list[float]) -> bool:
    return all(math.isclose(a, b, abs_tol=1e-5) for a, b in zip(found, wanted, strict=True))


def test_by_hand() -> None:
    """gamma 0.9, lambda 0.5; deltas: 0.9·0.6-0.5, 0.9·0.8-0.6, 1-0.8."""
    found = gae([0.0, 0.0, 1.0], [0.5, 0.6, 0.8], discount=0.9, trace=0.5)
    assert close(found, [0.04 + 0.45 * 0.21, 0.12 + 0.45 * 0.2, 0.2])


def test_an_episode_that_ended_earns_nothing_more() -> None:
    """What stands in the decisions after the end, NaN included, does not matter; nor what comes after the horizon."""
    found = gae([0.0, 1.0, 5.0], [0.5, 0.6, math.nan], ended=2, last=9.0, discount=0.9, trace=0.5)
    assert close(found, [0.04 + 0.45 * 0.4, 0.4, 0.0])


def test_a_cut_episode_is_credited_with_the_value_of_its_last_frame() -> None:
    assert close(gae([0.0, 0.0], [0.5, 0.6], last=0.7, discount=0.9, trace=0.0), [0.9 * 0.6 - 0.5, 0.9 * 0.7 - 0.6])


NUMBERS = st.lists(st.tuples(st.floats(-2, 2, width=32), st.floats(-2, 2, width=32)), min_size=1, max_size=8)


@given(NUMBERS, st.sampled_from([0.0, 0.5, 1.0]))
def test_lambda_1_is_monte_carlo_less_the_value(pairs: list[tuple[float, float]], discount: float) -> None:
    rewards, values = [r for r, _ in pairs], [v for _, v in pairs]
    returns = [sum(r * discount**k for k, r in enumerate(rewards[n:])) for n in range(len(rewards))]
    found = gae(rewards, values, discount=discount)
    assert close(found, [g - v for g, v in zip(returns, values, strict=True)])


@given(NUMBERS, st.floats(0, 1), st.floats(0, 1))
def test_a_critic_that_is_right_leaves_nothing(pairs: list[tuple[float, float]], discount: float, trace: float) -> None:
    rewards = [r for r, _ in pairs]
    values = [sum(r * discount**k for k, r in enumerate(rewards[n:])) for n in range(len(rewards))]
    assert all(abs(a) < 1e-4 for a in gae(rewards, values, discount=discount, trace=trace))


@given(NUMBERS, st.floats(0, 1), st.floats(0, 1), st.integers(1, 8))
def test_episodes_do_not_mix(pairs: list[tuple[float, float]], discount: float, trace: float, ended: int) -> None:
    rewards, values = torch.tensor([r for r, _ in pairs]), torch.tensor([v for _, v in pairs])
    alone = gae(rewards.tolist(), values.tolist(), ended=min(ended, len(pairs)), discount=discount, trace=trace)
    both = generalised_advantages(
        torch.stack([rewards.flip(0), rewards]), torch.stack([values, values]),
        torch.stack([torch.ones(len(pairs)).bool(), torch.arange(len(pairs)) < ended]), last_B=torch.zeros(2),
        discount=discount, trace=trace,
    )  # fmt: skip
    assert close(both[1].tolist(), alone)


def test_rewards_of_a_decision_are_those_of_its_actions_that_count() -> None:
    rewards_BS = torch.tensor([[1.0, 2.0, 4.0, math.nan]])
    mask_BS = torch.tensor([[True, True, True, False]])
    assert of_decisions(rewards_BS, mask_BS, 2).tolist() == [[3.0, 4.0]]
    assert of_decisions(Tensor(0, 0), torch.zeros(0, 0).bool(), 1).tolist() == []
