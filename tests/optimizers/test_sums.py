"""A loss is a true sum: however a minibatch is cut, its parts add up to it, in total, weight, gradient and metrics."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from made import minibatch
from torch import Tensor

from gymnast_core.interfaces import Optimizer
from gymnast_core.training.tally import Tally
from gymnast_core.types import LossSum
from gymnast_optimizers.grpo import GRPO
from gymnast_optimizers.iter_sft import IterSFT
from gymnast_optimizers.rloo import RLOO

OPTIMIZERS = {
    "grpo, trajectories": GRPO(),
    "grpo, tokens": GRPO(GRPO.Config(loss_average="token")),
    "grpo, trajectories, reference": GRPO(GRPO.Config(kl_coefficient=0.3)),
    "grpo, tokens, reference": GRPO(GRPO.Config(kl_coefficient=0.3, loss_average="token")),
    "rloo": RLOO(),
    "iter-sft": IterSFT(),
}
TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-5}


@dataclass(frozen=True)
class Case:
    """B trajectories that finish when they like and succeed or not, cut in parts."""

    seed: int
    finish_B: list[int]
    success_B: list[bool]
    cuts: list[int]
    steps: int = 5
    factors: int = 3

    def rows(self) -> list[Tensor]:
        """The parts, of trajectories in an order of their own."""
        order = torch.randperm(len(self.finish_B), generator=torch.Generator().manual_seed(self.seed))
        places = [0, *sorted(set(self.cuts)), len(order)]
        return [order[first:last] for first, last in pairwise(places) if last > first]

    def tensors(self, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        generator = torch.Generator().manual_seed(self.seed)
        shape = (3, len(self.finish_B), self.steps, self.factors)
        new, old, reference = (-2.0 + 0.4 * torch.randn(shape, generator=generator, dtype=dtype)).unbind()
        success_B = torch.tensor(self.success_B)
        # Failures are pushed down by GRPO and RLOO, and of no account to Iter-SFT.
        advantages_B = torch.where(success_B, 1.0, -0.5) * torch.rand(len(success_B), generator=generator)
        mask_BS = torch.arange(self.steps) < torch.tensor(self.finish_B)[:, None]
        return new, old, reference, advantages_B, mask_BS


@st.composite
def cases(draw: st.DrawFn) -> Case:
    count = draw(st.integers(1, 7))
    return Case(
        seed=draw(st.integers(0, 10**6)),
        finish_B=draw(st.lists(st.integers(0, 5), min_size=count, max_size=count)),
        success_B=draw(st.lists(st.booleans(), min_size=count, max_size=count)),
        cuts=draw(st.lists(st.integers(1, count), max_size=count)),
    )


def learn(optimizer: Optimizer, case: Case, parts: list[Tensor], dtype: torch.dtype) -> tuple[list[LossSum], Tensor]:
    """The losses of the parts, and the gradient of their sum."""
    new, old, reference, advantages_B, mask_BS = case.tensors(dtype)
    log_prob_BSD = new.requires_grad_()
    losses = [
        optimizer.loss(minibatch(log_prob_BSD[rows], old[rows], advantages_B[rows], mask_BS[rows], reference[rows]))
        for rows in parts
    ]
    for loss in losses:
        assert not loss.total.isnan() and float(loss.weight) >= 0
        loss.total.backward()
    assert log_prob_BSD.grad is not None
    return losses, log_prob_BSD.grad


def logged(losses: list[LossSum]) -> dict[str, float]:
    tally = Tally()
    for loss in losses:
        tally.add(loss.metrics)
    return tally.numbers()


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@settings(max_examples=60, deadline=None)
@given(case=cases())
def test_the_parts_add_up_to_the_whole(name: str, dtype: torch.dtype, case: Case) -> None:
    optimizer, tolerance = OPTIMIZERS[name], TOLERANCE[dtype]
    everything = [torch.arange(len(case.finish_B))]
    whole, gradient = learn(optimizer, case, everything, dtype)
    parts, gradient_of_parts = learn(optimizer, case, case.rows(), dtype)
    total = sum(loss.total.item() for loss in parts)
    assert total == pytest.approx(whole[0].total.item(), rel=tolerance, abs=tolerance)
    assert sum(float(loss.weight) for loss in parts) == float(whole[0].weight)
    torch.testing.assert_close(gradient_of_parts, gradient, rtol=tolerance, atol=tolerance)
    assert logged(parts) == pytest.approx(logged(whole), rel=10 * tolerance, abs=tolerance)


@pytest.mark.parametrize(
    ("name", "weight"),
    [("grpo, trajectories", 3), ("grpo, tokens", 3 * (1 + 3 + 5)), ("rloo", 3), ("iter-sft", 2)],
)
def test_the_weight_is_what_the_sum_counts(name: str, weight: int) -> None:
    case = Case(0, finish_B=[1, 3, 5], success_B=[True, False, True], cuts=[])
    (loss,), _ = learn(OPTIMIZERS[name], case, [torch.arange(3)], torch.float32)
    assert float(loss.weight) == weight


def test_the_totals_are_the_formulas_written_out() -> None:
    """Nested loops over trajectories, actions and factors."""
    case = Case(3, finish_B=[1, 4, 5], success_B=[True, False, True], cuts=[])
    new, old, reference, advantages_B, mask_BS = case.tensors(torch.float64)
    by_trajectory = by_token = reinforce = imitation = 0.0
    for row, finish in enumerate(case.finish_B):
        advantage, gains, divergences, log_probs = float(advantages_B[row]), [], [], []
        for step in range(finish):
            for factor in range(case.factors):
                log_prob = new[row, step, factor]
                ratio = (log_prob - old[row, step, factor]).exp()
                gains.append(-min(ratio * advantage, ratio.clamp(0.8, 1.28) * advantage))
                gap = reference[row, step, factor] - log_prob
                divergences.append(gap.exp() - 1 - gap)
                log_probs.append(log_prob)
        terms = [gain + 0.3 * divergence for gain, divergence in zip(gains, divergences, strict=True)]
        by_trajectory += sum(terms) / len(terms)
        by_token += sum(terms)
        reinforce -= advantage * sum(log_probs)
        imitation -= sum(log_probs) / len(log_probs) if advantage > 0 else 0.0
    wanted = {
        "grpo, trajectories, reference": by_trajectory,
        "grpo, tokens, reference": by_token,
        "rloo": reinforce,
        "iter-sft": imitation,
    }
    for name, total in wanted.items():
        batch = minibatch(new, old, advantages_B, mask_BS, reference)
        assert OPTIMIZERS[name].loss(batch).total.item() == pytest.approx(float(total), rel=1e-6), name
