"""The discretised Gaussian, against scipy-free sources: torch's Normal, sums, and draws."""

import pytest
import torch
from gymnast_core.errors import DataError

from gymnast_pi0 import head

STD = torch.tensor([0.01, 0.3])


def test_within_its_range_a_learned_spread_is_what_was_learned():
    log_std = torch.tensor([0.01, 0.0101, 0.1, 0.7, 1.0], dtype=torch.float64).log()
    assert torch.equal(head.limited(log_std), log_std)


def test_beyond_its_range_a_learned_spread_stays_near_and_grows_on():
    log_std = torch.tensor([1e-8, 0.001, 0.005, 0.0099, 1.01, 2.0, 50.0], dtype=torch.float64).log()
    std = head.limited(log_std).exp()
    assert (std.diff() > 0).all() and 0.01 / 1.1 < std[0] < 0.0092 and 1.09 < std[-1] < 1.1


@pytest.mark.parametrize("std", [1e-4, 0.005, 0.0099, 0.01, 0.011, 1.0, 1.01, 5.0])
def test_a_gradient_leads_back_from_wherever_a_step_ended(std):
    """An action far from the mean wants a wider spread, one at the mean a narrower one."""
    log_std = torch.tensor([std], dtype=torch.float64).log().requires_grad_()
    for distance, sign in ((5.0, 1.0), (0.0, -1.0)):
        bins = head.nearest(torch.full((1, 1, 1), distance))
        found = head.log_probability(bins, torch.zeros(1, 1, 1), head.limited(log_std).exp())
        (gradient,) = torch.autograd.grad(found.sum(), log_std)
        assert gradient.isfinite().all() and gradient.item() * sign > 0, (distance, gradient)


def test_the_masses_of_all_bins_add_up_to_one():
    bins_L = torch.arange(-9000, 9000)
    mean_BLA = torch.tensor([0.1234, -0.7]).expand(1, len(bins_L), 2)
    mass = head.log_probability(bins_L[None, :, None].expand(1, -1, 2), mean_BLA, STD).double().exp().sum(1)
    torch.testing.assert_close(mass, torch.ones(1, 2, dtype=torch.float64), atol=1e-5, rtol=0)


def test_a_mass_is_the_density_times_the_width():
    mean = torch.zeros(1, 5, 2)
    drawn = torch.tensor([0.0, 0.5, -1.0, 2.0, -3.0])[None, :, None] * STD
    bins = head.nearest(drawn)
    wanted = torch.distributions.Normal(mean.double(), STD.double()).log_prob(head.centres(bins))
    found = head.log_probability(bins, mean, STD).double() - torch.tensor(head.BIN).double().log()
    torch.testing.assert_close(found, wanted, atol=3e-4, rtol=0)


def test_far_tails_are_finite_and_symmetric_and_have_gradients():
    mean = torch.tensor([[[-4.0, 4.0]]], requires_grad=True)
    bins = head.nearest(torch.zeros(1, 1, 2))
    found = head.log_probability(bins, mean, torch.tensor([0.05, 0.05]))
    assert torch.isfinite(found).all() and found[0, 0, 0] == found[0, 0, 1] < -3000
    (gradient,) = torch.autograd.grad(found.sum(), mean)
    # d/dμ of -(x - μ)² / 2σ² at x = 0
    torch.testing.assert_close(gradient, torch.tensor([[[1600.0, -1600.0]]]), rtol=1e-3, atol=0)


def test_what_lies_beyond_the_grid_belongs_to_its_ends():
    mean = torch.tensor([[[-500.0, 500.0]]], requires_grad=True)
    bins = head.nearest(mean)
    assert bins.tolist() == [[[-head.HALF, head.HALF - 1]]]
    found = head.log_probability(bins, mean, STD)
    torch.testing.assert_close(found, torch.zeros(1, 1, 2))
    (gradient,) = torch.autograd.grad(found.sum(), mean)
    assert torch.isfinite(gradient).all()


def test_draws_have_the_entropy_that_is_claimed():
    generator = torch.Generator().manual_seed(1)
    mean = torch.zeros(4000, 1, 2)
    bins = head.nearest(torch.randn(mean.shape, generator=generator) * STD)
    measured = -head.log_probability(bins, mean, STD).mean(0)
    torch.testing.assert_close(measured, head.entropy(mean, STD)[0], atol=0.04, rtol=0)


def test_tokens_hold_seed_and_bin():
    bins = torch.tensor([[[-head.HALF, head.HALF - 1]], [[0, -1]]])
    tokens = head.encode([head.SEED_LIMIT - 1, 0], bins)
    assert tokens.dtype == torch.int64 and (tokens >= 0).all()
    decoded = head.decode(tokens)
    assert decoded.seeds == [head.SEED_LIMIT - 1, 0] and torch.equal(decoded.bins_BLA, bins)
    with pytest.raises(DataError, match="no tokens of a pi0 policy"):
        head.decode(torch.tensor([[[5, 5 << 30]]]))
