"""Iterated imitation of what succeeded."""

from __future__ import annotations

import math

import pytest
import torch

from gymnast_core.errors import ConfigError
from gymnast_optimizers.iter_sft import IterSFT


def test_only_scored_successes_count() -> None:
    rewards_GK = torch.tensor([[1.0, 0.0], [0.0, 0.5], [math.nan, 1.0], [math.inf, 0.0]])
    valid_GK = torch.tensor([[True, True], [True, True], [False, True], [False, True]])
    optimizer = IterSFT(IterSFT.Config(group_size=2))
    assert optimizer.advantages(rewards_GK, valid_GK).tolist() == [[1, 0], [0, 0], [0, 1], [0, 0]]
    assert optimizer.keep(rewards_GK, valid_GK).tolist() == [True, False, True, False]


def test_loss_is_the_mean_negative_log_probability_of_successes() -> None:
    log_prob_BS = torch.tensor([[-1.0, -3.0, math.nan], [-9.0, -9.0, -9.0], [-4.0, 0.0, 0.0]], requires_grad=True)
    mask_BS = torch.tensor([[1, 1, 0], [1, 1, 1], [1, 0, 0]]).bool()
    old_BS = torch.zeros(3, 3)
    loss = IterSFT().loss(log_prob_BS, old_BS, torch.tensor([1.0, 0.0, 1.0]), mask_BS)
    loss.value.backward()
    assert loss.value.item() == pytest.approx((2.0 + 4.0) / 2)
    assert log_prob_BS.grad.tolist() == [[-0.25, -0.25, 0], [0, 0, 0], [-0.5, 0, 0]]
    assert loss.metrics["success_fraction"] == pytest.approx(2 / 3)


def test_without_successes_the_loss_is_zero() -> None:
    log_prob_BS = torch.randn(2, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
    loss = IterSFT().loss(log_prob_BS, torch.zeros(2, 3), torch.zeros(2), torch.ones(2, 3).bool())
    loss.value.backward()
    assert loss.value.item() == 0.0 and not log_prob_BS.grad.any()


def test_demonstrations_are_mixed_one_to_one() -> None:
    assert IterSFT().demonstrations_per_rollout == 1.0
    assert IterSFT(IterSFT.Config(demonstrations_per_rollout=0.0)).demonstrations_per_rollout == 0.0
    with pytest.raises(ConfigError, match="demonstrations_per_rollout"):
        IterSFT(IterSFT.Config(demonstrations_per_rollout=-1.0))
