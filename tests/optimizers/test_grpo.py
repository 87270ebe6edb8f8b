"""Properties of GRPO that hold for any rewards, masks and log-probabilities."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from made import judged, minibatch, numbers
from omegaconf import OmegaConf
from torch import Tensor, nn

from gymnast_core.errors import ConfigError
from gymnast_core.interfaces import Optimizer, Parts, RewardModel
from gymnast_core.testing import check_optimizer
from gymnast_core.training.tally import Tally
from gymnast_optimizers.grpo import DAPO, GRPO, DrGRPO
from gymnast_optimizers.iter_sft import IterSFT
from gymnast_optimizers.reinforce import ReinforcePlusPlus
from gymnast_optimizers.rloo import RLOO

REWARDS = st.lists(st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0]), min_size=2, max_size=12)
GARBAGE = st.sampled_from([math.nan, math.inf, -math.inf, 1e30])
quick = settings(max_examples=60, deadline=None)


class Scorer(RewardModel):
    """Gives no success but scores."""

    kind = "score"

    def score(self, rollouts):
        raise NotImplementedError


def advantages(rewards: list[float], **config: object) -> Tensor:
    """One group's; NaN is an unjudged rollout."""
    found = GRPO(GRPO.Config(**config)).advantages(judged([rewards])).advantages_BS
    assert torch.equal(found[:, 0], found[:, -1])
    return found[:, 0]


def batch(seed: int, rows: int = 3, steps: int = 4, factors: int = 2) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    new, old = torch.randn(2, rows, steps, factors, generator=generator).unbind()
    advantages_B = torch.randn(rows, generator=generator)
    return new, old, advantages_B, torch.rand(rows, steps, generator=generator) < 0.6


@quick
@given(REWARDS, st.floats(-3, 3))
def test_advantages_ignore_a_shift_of_all_rewards(rewards: list[float], shift: float) -> None:
    shifted = advantages([reward + shift for reward in rewards])
    torch.testing.assert_close(shifted, advantages(rewards), atol=1e-5, rtol=1e-5)


@quick
@given(REWARDS, st.floats(0.5, 20))
def test_advantages_ignore_the_scale_of_rewards(rewards: list[float], scale: float) -> None:
    scaled = advantages(rewards, reward_scale=scale)
    torch.testing.assert_close(scaled, advantages(rewards), atol=1e-4, rtol=1e-4)


@quick
@given(REWARDS, st.randoms(use_true_random=False))
def test_advantages_follow_a_permutation_of_the_group(rewards: list[float], random) -> None:
    order = list(range(len(rewards)))
    random.shuffle(order)
    permuted = advantages([rewards[i] for i in order])
    torch.testing.assert_close(permuted, advantages(rewards)[order])


@quick
@given(REWARDS)
def test_advantages_have_mean_zero_and_unit_spread(rewards: list[float]) -> None:
    values = advantages(rewards)
    assert values.sum().item() == pytest.approx(0, abs=1e-5)
    assert values.std().item() == pytest.approx(1.0 if len(set(rewards)) > 1 else 0.0, abs=1e-4)


@quick
@given(REWARDS, st.integers(1, 4))
def test_unscored_entries_change_nothing(rewards: list[float], unscored: int) -> None:
    mixed = advantages(rewards + [math.nan] * unscored)
    assert torch.equal(mixed[: len(rewards)], advantages(rewards))
    assert torch.equal(mixed[len(rewards) :], torch.zeros(unscored))


def test_equal_rewards_give_no_advantage_and_a_group_of_one_keeps_its_reward() -> None:
    assert torch.equal(advantages([0.1] * 7), torch.zeros(7))
    assert advantages([1.0], group_size=1, reward_scale=5.0).item() == pytest.approx(5.0, abs=1e-4)
    assert advantages([1.0, math.nan]).tolist() == pytest.approx([1.0, 0.0], abs=1e-5)
    assert torch.equal(advantages([math.nan] * 3), torch.zeros(3))


def test_a_process_without_groups_has_no_advantages() -> None:
    nothing = judged([])
    assert GRPO().keep(nothing).tolist() == [] and GRPO().advantages(nothing).advantages_BS.shape == (0, 0)


def test_without_normalisation_advantages_are_the_distance_from_the_mean() -> None:
    assert advantages([1.0, 0.0, 0.0, 0.0], normalise_std=False).tolist() == [0.75, -0.25, -0.25, -0.25]


def test_keep_wants_spread_and_a_success_rate_within_the_bounds() -> None:
    nan = math.nan
    groups = judged(
        [[1, 0, 0, 0], [0, 0, 0, 0], [1, 1, 1, 1], [0.5, 0.5, 0.5, 0.5], [1, nan, nan, nan], [1, 0, nan, nan]]
    )
    kept = GRPO(GRPO.Config(group_size=4)).keep(groups)
    assert kept.tolist() == [True, False, False, False, False, True]
    tenths = judged([[1.0] + [0.0] * 9, [1.0] * 9 + [0.0]])
    assert GRPO(GRPO.Config(group_size=10)).keep(tenths).all()
    assert not GRPO(GRPO.Config(group_size=10, accuracy_bounds=[0.2, 0.8])).keep(tenths).any()


@pytest.mark.parametrize("optimizer", [GRPO, DAPO, DrGRPO])
def test_graded_rewards_of_groups_that_all_failed_are_kept_by_wide_bounds(optimizer: type[GRPO]) -> None:
    """All failed, all succeeded, all alike: the bounds are of what is learned from."""
    groups = judged([[0.01, 0.05], [0.96, 0.99], [0.02, 0.02]])
    success = [0.0, 0.0, 1.0, 1.0, 0.0, 0.0]
    rewards = tuple(replace(reward, success=s) for reward, s in zip(groups.rewards, success, strict=True))
    graded = replace(groups, rewards=rewards)
    for bounds, kept in (([0.0, 1.0], [True, True, False]), ([0.1, 0.9], [False, False, False])):
        keeps = optimizer(optimizer.Config(group_size=2, accuracy_bounds=bounds)).keep
        assert keeps(graded).tolist() == keeps(groups).tolist() == kept


@pytest.mark.parametrize("offset", [0.0, 10_000.0, -3e6])
def test_scores_that_differ_by_little_beside_their_size_still_differ(offset: float) -> None:
    """float32 has no two numbers between 10000.0001 and 10000.0004."""
    groups = judged([[offset + 0.0001, offset + 0.0004]])
    optimizer = GRPO(GRPO.Config(group_size=2, epsilon=0.0))
    optimizer.attach(Parts(reward_model=Scorer()))
    assert optimizer.keep(groups).tolist() == [True]
    found = optimizer.advantages(groups).advantages_BS
    assert found.dtype == torch.float32
    torch.testing.assert_close(found[:, 0], torch.tensor([-(0.5**0.5), 0.5**0.5]))
    assert RLOO(RLOO.Config(group_size=2)).advantages(groups).advantages_BS[0, 0] == pytest.approx(-0.0003, rel=1e-4)
    whitened = ReinforcePlusPlus(ReinforcePlusPlus.Config(group_size=2, epsilon=0.0)).advantages(groups).advantages_BS
    assert (whitened[0, 0] < 0) == (abs(offset) < 1e5)  # beside a mean that is 1e8 times the spread, that is no signal


def test_scores_know_no_bounds() -> None:
    groups = judged([[-7.0, -5.0], [3.0, 3.0], [40.0, 41.0], [math.nan, 2.0]])
    optimizer = GRPO(GRPO.Config(group_size=2))
    assert optimizer.keep(groups).tolist() == [False] * 4
    optimizer.attach(Parts(reward_model=Scorer()))
    assert optimizer.keep(groups).tolist() == [True, False, True, False]


def test_a_group_size_of_one_keeps_what_was_rewarded() -> None:
    kept = GRPO(GRPO.Config(group_size=1)).keep(judged([[1.0], [0.0], [0.5]]))
    assert kept.tolist() == [True, False, True]


@quick
@given(st.integers(0, 1000), GARBAGE, st.sampled_from(["trajectory", "token"]))
def test_masked_factors_change_neither_loss_nor_gradient(seed: int, garbage: float, average: str) -> None:
    new, old, advantages_B, mask_BS = batch(seed)
    optimizer = GRPO(GRPO.Config(kl_coefficient=0.1, loss_average=average))
    results = []
    for fill in (0.0, garbage):
        log_prob_BSD = torch.where(mask_BS[..., None], new, fill).requires_grad_()
        advantages_BS = torch.where(mask_BS, advantages_B[:, None], fill)
        old_BSD = torch.where(mask_BS[..., None], old, fill)
        loss = optimizer.loss(minibatch(log_prob_BSD, old_BSD, advantages_BS, mask_BS, old_BSD))
        loss.total.backward()
        results.append((loss.total.detach(), log_prob_BSD.grad, numbers(loss), float(loss.weight)))
    assert torch.equal(results[0][0], results[1][0]) and torch.isfinite(results[0][0])
    assert torch.equal(results[0][1], results[1][1]) and not results[0][1][~mask_BS].any()
    assert results[0][2:] == results[1][2:]


def test_an_empty_mask_contributes_nothing_and_no_nan() -> None:
    new, old, advantages_B, mask_BS = batch(0)
    mask_BS[1] = False
    full = GRPO().loss(minibatch(new, old, advantages_B, mask_BS))
    others = GRPO().loss(minibatch(new[[0, 2]], old[[0, 2]], advantages_B[[0, 2]], mask_BS[[0, 2]]))
    assert full.total.item() == pytest.approx(others.total.item(), abs=1e-6)
    assert (float(full.weight), float(others.weight)) == (3, 2)
    nothing = GRPO().loss(minibatch(new.requires_grad_(), old, advantages_B, torch.zeros_like(mask_BS)))
    nothing.total.backward()
    assert nothing.total.item() == 0.0 and not new.grad.any()
    tally = Tally()
    tally.add(nothing.metrics)
    assert all(math.isfinite(value) for value in tally.numbers().values())
    assert "ratio_max" not in tally.numbers()


@pytest.mark.parametrize(
    ("advantage", "ratio", "flows"), [(1, 1.5, False), (1, 0.5, True), (-1, 0.5, False), (-1, 1.5, True)]
)
def test_gradient_stops_where_the_clip_is_active(advantage: float, ratio: float, flows: bool) -> None:
    log_prob_111 = torch.tensor([[[math.log(ratio)]]], requires_grad=True)
    one = torch.ones(1, 1, dtype=torch.bool)
    loss = GRPO().loss(minibatch(log_prob_111, torch.zeros(1, 1, 1), torch.tensor([float(advantage)]), one))
    loss.total.backward()
    assert bool(log_prob_111.grad.any()) is flows


def test_each_action_has_its_own_advantage() -> None:
    advantages_BS = torch.tensor([[2.0, -1.0, 5.0]])
    log_prob_BSD = torch.zeros(1, 3, 2, requires_grad=True)
    mask_BS = torch.tensor([[True, True, False]])
    loss = GRPO().loss(minibatch(log_prob_BSD, torch.zeros(1, 3, 2), advantages_BS, mask_BS))
    loss.total.backward()
    assert log_prob_BSD.grad.tolist() == [[[-0.5, -0.5], [0.25, 0.25], [0.0, 0.0]]]


def test_extremes_are_those_of_what_counts() -> None:
    ratio_BSD = torch.tensor([[[0.5], [2.0]], [[0.25], [9.0]]])
    mask_BS = torch.tensor([[True, False], [True, False]])
    loss = GRPO().loss(minibatch(ratio_BSD.log(), torch.zeros(2, 2, 1), torch.ones(2), mask_BS))
    assert loss.metrics["ratio_max"].combine == "max" and loss.metrics["ratio_min"].combine == "min"
    assert numbers(loss)["ratio_max"] == pytest.approx(0.5) and numbers(loss)["ratio_min"] == pytest.approx(0.25)


def test_extreme_ratios_stay_finite() -> None:
    log_prob_B11 = torch.tensor([[[500.0]], [[-500.0]]], requires_grad=True)
    advantages_B = torch.tensor([-1.0, -1.0])
    loss = GRPO().loss(minibatch(log_prob_B11, torch.zeros(2, 1, 1), advantages_B, torch.ones(2, 1).bool()))
    loss.total.backward()
    assert torch.isfinite(loss.total) and torch.isfinite(log_prob_B11.grad).all()


def test_kl_penalty_pulls_towards_the_reference() -> None:
    optimizer = GRPO(GRPO.Config(kl_coefficient=0.5))
    assert optimizer.needs_reference and not GRPO().needs_reference
    log_prob_121 = torch.tensor([[[-1.0], [-3.0]]], requires_grad=True)
    old, everything = log_prob_121.detach(), torch.ones(1, 2).bool()
    reference_121 = torch.tensor([[[-2.0], [-2.0]]])
    loss = optimizer.loss(minibatch(log_prob_121, old, torch.zeros(1), everything, reference_121))
    loss.total.backward()
    expected = ((math.exp(-1) + 1 - 1) + (math.exp(1) - 1 - 1)) / 2
    assert numbers(loss)["reference_kl"] == pytest.approx(expected, abs=1e-6)
    assert loss.total.item() == pytest.approx(0.5 * expected, abs=1e-6)
    assert log_prob_121.grad[0, 0] > 0 > log_prob_121.grad[0, 1]
    with pytest.raises(ConfigError, match="reference"):
        optimizer.loss(minibatch(log_prob_121, old, torch.zeros(1), everything))


@pytest.mark.parametrize("average", ["trajectory", "token", "horizon"])
def test_the_divergence_is_that_of_what_counts(average: str) -> None:
    """Half of the actions are masked; "horizon" divides losses by them, too, and no number that tells of the policy."""
    generator = torch.Generator().manual_seed(0)
    log_prob_BSD, old_BSD, reference_BSD = (0.3 * torch.randn(4, 8, 2, generator=generator) for _ in range(3))
    mask_BS = torch.arange(8)[None].expand(4, -1) < 4
    given = minibatch(log_prob_BSD, old_BSD, torch.randn(4, generator=generator), mask_BS, reference_BSD)
    found = numbers(GRPO(GRPO.Config(kl_coefficient=0.1, loss_average=average)).loss(given))
    for name, other_BSD in (("reference_kl", reference_BSD - log_prob_BSD), ("approx_kl", log_prob_BSD - old_BSD)):
        k3_BSD = other_BSD.exp() - 1 - other_BSD
        assert found[name] == pytest.approx(k3_BSD[mask_BS].mean().item(), rel=1e-5), name


@pytest.mark.parametrize("average", ["trajectory", "token", "horizon"])
def test_the_policys_loss_is_the_surrogate_alone(average: str) -> None:
    generator = torch.Generator().manual_seed(0)
    log_prob_BSD, old_BSD, reference_BSD = (0.3 * torch.randn(4, 8, 2, generator=generator) for _ in range(3))
    given = minibatch(
        log_prob_BSD, old_BSD, torch.randn(4, generator=generator), torch.ones(4, 8).bool(), reference_BSD
    )
    given = replace(given, entropy_BSD=torch.ones(4, 8, 2))
    pulled = {"kl_coefficient": 0.1, "entropy_coefficient": 0.5}
    alone = GRPO(GRPO.Config(loss_average=average)).loss(given)
    found = GRPO(GRPO.Config(loss_average=average, **pulled)).loss(given)
    assert numbers(found)["policy_loss"] == pytest.approx(alone.mean.item()) != pytest.approx(found.mean.item())


def test_stops_when_the_policy_moved_too_far() -> None:
    optimizer = GRPO(GRPO.Config(kl_stop=0.02))
    assert optimizer.should_stop({"approx_kl": 0.03}) and optimizer.should_stop({"approx_kl": math.nan})
    assert not optimizer.should_stop({"approx_kl": 0.01})
    assert not GRPO().should_stop({"approx_kl": 100.0})


def test_learning_rate_rises_and_falls() -> None:
    config = GRPO.Config(learning_rate=1.0, warmup_updates=4, learning_rate_decay_updates=10)
    rates = [GRPO(config).learning_rate(update) for update in range(20)]
    assert rates[:5] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert rates[9] == pytest.approx(0.5) and rates[14:] == [0.0] * 6
    assert all(before >= after for before, after in pairwise(rates[4:]))
    assert GRPO(GRPO.Config(learning_rate=0.3)).learning_rate(10**6) == 0.3


def test_adamw_decays_matrices_only() -> None:
    network = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4))
    optimizer = GRPO(GRPO.Config(weight_decay=0.1, learning_rate=0.01, warmup_updates=2))
    groups = optimizer.torch_optimizer(list(network.parameters())).param_groups
    assert [(len(g["params"]), g["weight_decay"]) for g in groups] == [(1, 0.1), (3, 0.0)]
    assert groups[0]["betas"] == (0.9, 0.95) and groups[0]["lr"] == 0.005
    with pytest.raises(ConfigError, match="requires_grad"):
        optimizer.torch_optimizer([nn.Parameter(torch.zeros(1), requires_grad=False)])


@pytest.mark.parametrize(
    "config",
    [
        {"group_size": 0},
        {"accuracy_bounds": [0.9, 0.1]},
        {"accuracy_bounds": [0.1]},
        {"clip_low": 1.5},
        {"loss_average": "sum"},
        {"betas": [0.9]},
        {"learning_rate": 0.0},
        {"kl_coefficient": -1.0},
        {"learning_rate_decay_updates": 0},
    ],
)
def test_a_wrong_setting_is_named(config: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=next(iter(config))):
        GRPO(GRPO.Config(**config))


def test_config_survives_omegaconf() -> None:
    merged = OmegaConf.merge(OmegaConf.structured(GRPO.Config), {"kl_stop": None, "clip_high": 0.3})
    assert OmegaConf.to_object(merged) == GRPO.Config(clip_high=0.3)


def test_a_policy_learns_which_arm_pays() -> None:
    """Two-armed bandit: rewards, advantages, loss and gradient step together favour the better arm."""
    logits = nn.Parameter(torch.zeros(2))
    rl = GRPO(GRPO.Config(learning_rate=0.1))
    descent = rl.torch_optimizer([logits])
    generator = torch.Generator().manual_seed(0)
    for _ in range(30):
        old = logits.detach().log_softmax(0)
        arm_GK = torch.multinomial(old.exp().expand(4, 2), 8, replacement=True, generator=generator)
        advantages_BS = rl.advantages(judged((arm_GK == 1).float().tolist(), steps=1)).advantages_BS
        arm_B11 = arm_GK.flatten()[:, None, None]
        descent.zero_grad()
        new_B11, old_B11 = logits.log_softmax(0)[arm_B11], old[arm_B11]
        rl.loss(minibatch(new_B11, old_B11, advantages_BS, torch.ones(32, 1).bool())).mean.backward()
        descent.step()
    assert logits.softmax(0)[1] > 0.9


@pytest.mark.parametrize("optimizer", [GRPO(), GRPO(GRPO.Config(kl_coefficient=0.1)), IterSFT()])
def test_it_keeps_the_public_contract(optimizer: Optimizer) -> None:
    assert check_optimizer(optimizer)


def test_unjudged_rollouts_have_no_step_rewards() -> None:
    group = judged([[0.5, math.nan, 1.0]], finish_B=[1, None, None], steps=3)
    rewards = list(group.rewards)
    assert group.step_rewards_BS.tolist() == [[0.5, 0, 0], [0, 0, 0], [0, 0, 1.0]]
    rewards = tuple(replace(reward, step_values_S=torch.tensor([1.0, 2.0, 3.0])) for reward in rewards)
    assert replace(group, rewards=rewards).step_rewards_BS.tolist() == [[1, 0, 0], [0, 0, 0], [1, 2, 3]]
