"""DAPO and Dr. GRPO: what they set, and what that comes to, by hand."""

from __future__ import annotations

import math

import pytest
import torch
from made import judged, minibatch

from gymnast_core.learning import Minibatch
from gymnast_core.testing import check_optimizer
from gymnast_optimizers.aggregation import masked_sum
from gymnast_optimizers.grpo import DAPO, GRPO, DrGRPO


@pytest.mark.parametrize("optimizer", [DAPO, DrGRPO])
def test_they_keep_the_contract(optimizer: type[GRPO]) -> None:
    assert check_optimizer(optimizer(optimizer.Config(group_size=4)), group_relative=True)


def test_dapo_keeps_what_is_neither_all_right_nor_all_wrong() -> None:
    groups = judged([[1.0] * 7 + [0.0], [0.0] * 7 + [1.0], [1.0] * 8, [0.0] * 8])
    assert DAPO().keep(groups).tolist() == [True, True, False, False]
    narrow = GRPO(GRPO.Config(accuracy_bounds=[0.2, 0.8]))
    assert narrow.keep(groups).tolist() == [False] * 4


def two_lengths() -> Minibatch:
    """Ratios 1, advantages 1 and -1; trajectories of 1 and of 4 actions with one factor each."""
    mask_BS = torch.tensor([[1, 0, 0, 0], [1, 1, 1, 1]]).bool()
    nothing = torch.zeros(2, 4, 1, requires_grad=True)
    return minibatch(nothing, torch.zeros(2, 4, 1), torch.tensor([1.0, -1.0]), mask_BS)


@pytest.mark.parametrize(
    ("optimizer", "total", "weight"),
    [
        (GRPO(), -1 + 1, 2),  # a mean each
        (DAPO(), -1 + 4, 5),  # every token the same
        (DrGRPO(), -1 / 4 + 4 / 4, 2),  # every token the same, over the horizon
    ],
)
def test_what_the_length_of_a_trajectory_comes_to(optimizer: GRPO, total: float, weight: float) -> None:
    found = optimizer.loss(two_lengths())
    assert found.total.item() == pytest.approx(total) and float(found.weight) == weight


def test_dr_grpo_subtracts_the_mean_alone() -> None:
    found = DrGRPO().advantages(judged([[1.0, 0.0, 0.0, math.nan]])).advantages_BS[:, 0]
    torch.testing.assert_close(found, torch.tensor([2 / 3, -1 / 3, -1 / 3, 0.0]))


@pytest.mark.parametrize("by", ["trajectory", "token", "horizon"])
def test_parts_add_up(by: str) -> None:
    generator = torch.Generator().manual_seed(1)
    values_BSD = torch.randn(5, 4, 2, generator=generator)
    mask_BS = torch.rand(5, 4, generator=generator) < 0.5
    whole = masked_sum(values_BSD, mask_BS, by=by)
    parts = [masked_sum(values_BSD[rows], mask_BS[rows], by=by) for rows in (slice(0, 2), slice(2, 5))]
    for index in range(2):
        torch.testing.assert_close(sum(float(part[index]) for part in parts), float(whole[index]))


def test_dapos_numbers_of_the_paper() -> None:
    """Eq. 8: clip at 1 - 0.2 and 1 + 0.28."""
    config = DAPO.Config()
    assert (config.clip_low, config.clip_high, config.loss_average) == (0.2, 0.28, "token")
