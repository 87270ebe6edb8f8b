"""Iterated imitation of what succeeded."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from made import judged, minibatch, numbers

from gymnast_core.errors import ConfigError
from gymnast_optimizers.iter_sft import IterSFT


def test_only_scored_successes_count() -> None:
    groups = judged([[1.0, 0.0], [0.0, 0.5], [math.nan, 1.0], [math.nan, 0.0]])
    optimizer = IterSFT(IterSFT.Config(group_size=2))
    advantages_BS = optimizer.advantages(groups).advantages_BS
    assert advantages_BS[:, 0].tolist() == [1, 0, 0, 0, 0, 1, 0, 0]
    assert torch.equal(advantages_BS[:, 0], advantages_BS[:, 1])
    assert optimizer.keep(groups).tolist() == [True, False, True, False]


def test_loss_is_the_mean_negative_log_probability_of_successes() -> None:
    log_prob_BS = torch.tensor([[-1.0, -3.0, math.nan], [-9.0, -9.0, -9.0], [-4.0, 0.0, 0.0]], requires_grad=True)
    mask_BS = torch.tensor([[1, 1, 0], [1, 1, 1], [1, 0, 0]]).bool()
    loss = IterSFT().loss(
        minibatch(log_prob_BS[..., None], torch.zeros(3, 3, 1), torch.tensor([1.0, 0.0, 1.0]), mask_BS)
    )
    loss.mean.backward()
    assert loss.total.item() == pytest.approx(2.0 + 4.0) and float(loss.weight) == 2
    assert log_prob_BS.grad is not None
    assert log_prob_BS.grad.tolist() == [[-0.25, -0.25, 0], [0, 0, 0], [-0.5, 0, 0]]
    assert numbers(loss)["success_fraction"] == pytest.approx(2 / 3)
    assert numbers(loss)["log_ratio"] == pytest.approx(-3.0)


def test_a_change_is_only_told_of_what_was_sampled_at_temperature_1() -> None:
    """Elsewhere, the probabilities that it acted with are those of another temperature."""
    log_prob_BSD, successes = torch.tensor([[[-1.0]], [[-5.0]]]), torch.ones(2)
    given = minibatch(log_prob_BSD, torch.full((2, 1, 1), -2.0), successes, torch.ones(2, 1).bool())
    cool, hot = given.rollouts
    loss = IterSFT().loss(replace(given, rollouts=(cool, replace(hot, temperature=1.6))))
    assert loss.total.item() == 6.0
    assert (numbers(loss)["log_ratio"], float(loss.metrics["log_ratio"].weight)) == (1.0, 1.0)


def test_without_successes_the_loss_is_a_zero_without_weight() -> None:
    log_prob_BSD = torch.randn(2, 3, 1, generator=torch.Generator().manual_seed(0)).requires_grad_()
    loss = IterSFT().loss(minibatch(log_prob_BSD, torch.zeros(2, 3, 1), torch.zeros(2), torch.ones(2, 3).bool()))
    loss.total.backward()
    assert log_prob_BSD.grad is not None
    assert (loss.total.item(), float(loss.weight), loss.mean.item()) == (0.0, 0.0, 0.0) and not log_prob_BSD.grad.any()
    assert all(math.isfinite(value) for value in numbers(loss).values())


def test_demonstrations_are_mixed_one_to_one() -> None:
    assert IterSFT().demonstrations_per_rollout == 1.0 and IterSFT().imitates
    assert IterSFT(IterSFT.Config(demonstrations_per_rollout=0.0)).demonstrations_per_rollout == 0.0
    with pytest.raises(ConfigError, match="demonstrations_per_rollout"):
        IterSFT(IterSFT.Config(demonstrations_per_rollout=-1.0))
