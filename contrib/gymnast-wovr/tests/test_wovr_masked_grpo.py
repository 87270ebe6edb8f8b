"""The loss of masked GRPO, against the formula written out."""

from __future__ import annotations

import logging
import math

import pytest
import torch
from gymnast_core.errors import ConfigError
from gymnast_core.testing.optimizer import check_optimizer
from gymnast_core.training.loop import step_mask
from wovr_parts import make_rollout

from gymnast_wovr.masked_grpo import MaskedGRPO

HORIZON, FACTORS = 8, 2


def batch(steps: list[int | None]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """New and old log-probabilities (B, S) of rollouts that succeeded after `steps`, advantages (B,), and the mask."""
    rollouts = [make_rollout([0] * (HORIZON + 1), seed, finish_step=step) for seed, step in enumerate(steps)]
    old_BS = torch.stack([rollout.log_prob_NLD.flatten() for rollout in rollouts])
    noise_BS = torch.randn(old_BS.shape, generator=torch.Generator().manual_seed(1))
    return old_BS + 0.3 * noise_BS, old_BS, torch.tensor([1.0, -0.5, 0.25][: len(steps)]), step_mask(rollouts, FACTORS)


def test_the_loss_is_the_formula_written_out():
    steps = [3, None, 1]
    new_BS, old_BS, advantages_B, mask_BS = batch(steps)
    optimizer = MaskedGRPO(MaskedGRPO.Config(clip_low=0.2, clip_high=0.28))
    lengths = [step or HORIZON for step in steps]
    total = 0.0
    for i, length in enumerate(lengths):
        valid = length * FACTORS
        for s in range(valid):
            ratio = math.exp(float(new_BS[i, s]) - float(old_BS[i, s]))
            advantage = float(advantages_B[i])
            clipped = min(max(ratio, 0.8), 1.28)
            total -= min(ratio * advantage, clipped * advantage) / valid / len(steps)
    loss = optimizer.loss(new_BS, old_BS, advantages_B, mask_BS)
    assert float(loss.value) == pytest.approx(total, rel=1e-5)
    assert loss.metrics["after_first_hit"] == pytest.approx(1 - sum(lengths) / (3 * HORIZON))


def test_at_ratio_one_each_valid_entry_has_the_weight_of_its_trajectory_over_its_length():
    _, old_BS, advantages_B, mask_BS = batch([2, 5])
    log_prob_BS = old_BS.clone().requires_grad_()
    MaskedGRPO().loss(log_prob_BS, old_BS, advantages_B, mask_BS).value.backward()
    assert log_prob_BS.grad is not None
    for row, step in enumerate([2, 5]):
        valid = step * FACTORS
        assert torch.allclose(log_prob_BS.grad[row, :valid], -advantages_B[row] / (2 * valid))
        assert (log_prob_BS.grad[row, valid:] == 0).all()


def test_it_keeps_the_contract_of_optimizers():
    assert check_optimizer(MaskedGRPO(MaskedGRPO.Config(group_size=4)))


@pytest.mark.parametrize(("before", "warnings"), [([None, None], 1), ([2, None], 0)])
def test_where_nothing_was_ever_masked_it_says_so_once(before, warnings, caplog):
    optimizer = MaskedGRPO()
    with caplog.at_level(logging.WARNING):
        optimizer.loss(*batch(before))
        for _ in range(2):
            optimizer.loss(*batch([None, None]))
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == warnings and all("name: first-hit" in message for message in messages)


def test_another_average_is_refused():
    with pytest.raises(ConfigError, match="1/valid length"):
        MaskedGRPO(MaskedGRPO.Config(loss_average="token"))
