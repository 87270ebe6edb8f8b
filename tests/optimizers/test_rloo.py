"""REINFORCE leave-one-out."""

from __future__ import annotations

import math

import pytest
import torch
from made import judged, minibatch

from gymnast_core.errors import ConfigError
from gymnast_core.testing import check_optimizer
from gymnast_optimizers.rloo import RLOO


def test_it_keeps_the_contract() -> None:
    assert check_optimizer(RLOO(RLOO.Config(group_size=4)), group_relative=True)


def test_each_baseline_is_the_mean_of_the_others() -> None:
    groups = judged([[1.0, 0.0, 0.5, 0.0], [1.0, math.nan, 0.0, 0.0]])
    expected = [1 - 0.5 / 3, 0 - 1.5 / 3, 0.5 - 1 / 3, 0 - 1.5 / 3, 1.0, 0.0, -0.5, -0.5]
    found_BS = RLOO().advantages(groups).advantages_BS
    assert torch.allclose(found_BS, torch.tensor(expected)[:, None].expand(-1, 2))


def test_groups_without_a_contrast_are_dropped() -> None:
    groups = judged([[1.0, 1.0], [0.1, 0.1], [1.0, 0.0], [1.0, math.nan]])
    assert RLOO().keep(groups).tolist() == [False, False, True, False]
    assert RLOO().keep(judged([])).tolist() == []


def test_the_gradient_is_reinforce_of_whole_trajectories() -> None:
    log_prob_BS = torch.tensor([[-1.0, -3.0, math.nan], [-2.0, -2.0, -2.0]], requires_grad=True)
    mask_BS = torch.tensor([[1, 1, 0], [1, 1, 1]]).bool()
    loss = RLOO().loss(minibatch(log_prob_BS[..., None], torch.zeros(2, 3, 1), torch.tensor([0.5, -1.0]), mask_BS))
    loss.mean.backward()
    assert loss.total.item() == pytest.approx(0.5 * 4 - 1.0 * 6) and loss.weight == 2
    assert log_prob_BS.grad is not None
    assert log_prob_BS.grad.tolist() == [[-0.25, -0.25, 0.0], [0.5, 0.5, 0.5]]


def test_the_estimator_is_unbiased_and_varies_less_than_without_a_baseline() -> None:
    """A policy p = P(right), reward 1 to the right and 0.5 to the left: the gradient by the logit is 0.5 p (1 - p)."""
    generator = torch.Generator().manual_seed(0)
    p, groups = 0.7, 40_000
    right_GK = (torch.rand(groups, 4, generator=generator) < p).float()
    rewards_GK = 0.5 + 0.5 * right_GK
    score_GK = right_GK - p  # the gradient of log p(action) by the logit
    # Every outcome of a group stands for the many groups that had it.
    outcomes, which_G = torch.unique(rewards_GK, dim=0, return_inverse=True)
    advantages_GK = RLOO().advantages(judged(outcomes.tolist())).advantages_BS[:, 0].reshape(-1, 4)[which_G]
    estimates_G, plain_G = (advantages_GK * score_GK).mean(1), (rewards_GK * score_GK).mean(1)
    assert float(estimates_G.mean()) == pytest.approx(0.5 * p * (1 - p), abs=4 * float(estimates_G.std()) / groups**0.5)
    assert float(estimates_G.var()) < 0.5 * float(plain_G.var())


def test_a_group_of_one_is_refused() -> None:
    with pytest.raises(ConfigError, match="at least 2"):
        RLOO(RLOO.Config(group_size=1))
