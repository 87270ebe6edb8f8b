"""The loss of masked GRPO, against the formula written out."""

from __future__ import annotations

import logging
import math
from dataclasses import replace

import pytest
import torch
from gymnast_core.errors import ConfigError
from gymnast_core.learning import Judged, Minibatch
from gymnast_core.rollouts.batch import decisions
from gymnast_core.testing.optimizer import check_optimizer
from gymnast_core.types import Needs, Reward
from wovr_parts import make_rollout

from gymnast_wovr.masked_grpo import MaskedGRPO

HORIZON, FACTORS = 8, 2


def batch(steps: list[int | None]) -> Minibatch:
    """A minibatch of rollouts that succeeded after `steps`, whose log-probabilities have changed."""
    rollouts = tuple(make_rollout([0] * (HORIZON + 1), seed) for seed in range(len(steps)))
    rewards = tuple(Reward(float(step is not None), finish_step=step) for step in steps)
    judged = Judged(rollouts, rewards, len(rollouts))
    observation, chunk = decisions(rollouts, Needs(), torch.device("cpu"))
    old_BSD = chunk.log_prob_BLD.reshape(len(rollouts), HORIZON, FACTORS)
    noise_BSD = torch.randn(old_BSD.shape, generator=torch.Generator().manual_seed(1))
    advantages_B1 = torch.tensor([1.0, -0.5, 0.25][: len(steps)])[:, None]
    return Minibatch(
        rollouts=rollouts,
        observation=observation,
        chunk=chunk,
        log_prob_BSD=old_BSD + 0.3 * noise_BSD,
        entropy_BSD=torch.zeros_like(old_BSD),
        old_log_prob_BSD=old_BSD,
        advantages_BS=advantages_B1.expand(-1, HORIZON),
        mask_BS=judged.mask_BS,
    )


def test_the_loss_is_the_formula_written_out():
    steps = [3, None, 1]
    given = batch(steps)
    new_BSD, old_BSD = given.log_prob_BSD, given.old_log_prob_BSD
    optimizer = MaskedGRPO(MaskedGRPO.Config(clip_low=0.2, clip_high=0.28))
    lengths = [step or HORIZON for step in steps]
    total = 0.0
    for i, length in enumerate(lengths):
        for s in range(length):
            for d in range(FACTORS):
                ratio = math.exp(float(new_BSD[i, s, d]) - float(old_BSD[i, s, d]))
                advantage = float(given.advantages_BS[i, s])
                clipped = min(max(ratio, 0.8), 1.28)
                total -= min(ratio * advantage, clipped * advantage) / (length * FACTORS)
    loss = optimizer.loss(given)
    assert float(loss.total) == pytest.approx(total, rel=1e-5) and float(loss.weight) == 3
    left_out = loss.metrics["after_first_hit"]
    assert left_out.value == pytest.approx(1 - sum(lengths) / (3 * HORIZON))
    assert (left_out.combine, left_out.weight) == ("mean", 3 * HORIZON)


def test_at_ratio_one_each_valid_entry_has_the_weight_of_its_trajectory_over_its_length():
    given = batch([2, 5])
    log_prob_BSD = given.old_log_prob_BSD.clone().requires_grad_()
    MaskedGRPO().loss(replace(given, log_prob_BSD=log_prob_BSD)).mean.backward()
    assert log_prob_BSD.grad is not None
    for row, step in enumerate([2, 5]):
        weight = -given.advantages_BS[row, 0] / (2 * step * FACTORS)
        assert torch.allclose(log_prob_BSD.grad[row, :step], weight.expand(step, FACTORS))
        assert (log_prob_BSD.grad[row, step:] == 0).all()


def test_it_keeps_the_contract_of_optimizers():
    assert check_optimizer(MaskedGRPO(MaskedGRPO.Config(group_size=4)))


@pytest.mark.parametrize(("before", "warnings"), [([None, None], 1), ([2, None], 0)])
def test_where_nothing_was_ever_masked_it_says_so_once(before, warnings, caplog):
    optimizer = MaskedGRPO()
    with caplog.at_level(logging.WARNING):
        optimizer.loss(batch(before))
        for _ in range(2):
            optimizer.loss(batch([None, None]))
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == warnings and all("name: first-hit" in message for message in messages)


def test_another_average_is_refused():
    with pytest.raises(ConfigError, match="1/valid length"):
        MaskedGRPO(MaskedGRPO.Config(loss_average="token"))
