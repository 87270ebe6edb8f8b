"""PPO: advantages, returns and losses against numbers worked out by hand, and the laws of sums and processes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from made import judged, minibatch, numbers
from several import in_threads
from torch import Tensor

from gymnast_core.errors import ConfigError
from gymnast_core.interfaces import Parts
from gymnast_core.learning import Judged, Minibatch
from gymnast_core.testing import check_optimizer
from gymnast_core.testing.made_judged import FEATURES, StandInPolicy, decided, tasks_for
from gymnast_core.types import Reward
from gymnast_optimizers.ppo import PPO
from gymnast_optimizers.rescoring import rescore
from gymnast_world_rewards.progress import shaping


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"ratio": "decision", "loss_average": "token", "bootstrap": True, "critic_trains_policy": True},
        {"ratio": "action", "loss_average": "horizon", "kl_coefficient": 0.1, "entropy_coefficient": 0.01},
        {"value_clip": None, "normalise_advantages": False, "discount": 0.9},
    ],
)
def test_it_keeps_the_contract(config: dict) -> None:
    assert check_optimizer(PPO(PPO.Config(group_size=3, **config)))


def trained(config: PPO.Config, parts: Parts | None = None, value: float = 0.0) -> PPO:
    """A PPO whose critic expects `value` everywhere, among the parts of a run."""
    policy = StandInPolicy()
    optimizer = PPO(config)
    optimizer.attach(replace(parts or Parts(), policy=policy, optimizer=optimizer, tasks=tasks_for(policy)))
    optimizer.extra_modules(policy)
    torch.nn.init.constant_(optimizer.critic.layers[-1].bias, value)
    return optimizer


def episodes(rewards: Sequence[Reward]) -> Judged:
    """Groups of one; two decisions of three actions each."""
    policy = StandInPolicy()
    return Judged(tuple(decided(policy, tasks_for(policy), len(rewards))), tuple(rewards), 1)


PLAIN = {"normalise_advantages": False, "discount": 0.9, "trace": 0.5}


def test_the_width_of_the_features_is_found() -> None:
    assert trained(PPO.Config()).critic.layers[1].in_features == FEATURES


def test_a_final_reward_by_hand() -> None:
    """The critic says 0.5 at both decisions: deltas 0.9·0.5 - 0.5 and 1 - 0.5."""
    found = trained(PPO.Config(**PLAIN), value=0.5).advantages(episodes([Reward(1.0)]))
    last, first = 0.5, -0.05 + 0.45 * 0.5
    torch.testing.assert_close(found.advantages_BS, torch.tensor([[first] * 3 + [last] * 3]))
    torch.testing.assert_close(found.targets["returns"], torch.tensor([[first + 0.5, 1.0]]))
    assert found.targets["values"].tolist() == [[0.5, 0.5]]


def test_rewards_of_each_action_by_hand() -> None:
    steps_S = torch.tensor([0.1, 0.1, 0.0, 0.0, 0.3, 0.5])
    found = trained(PPO.Config(**PLAIN | {"trace": 1.0})).advantages(episodes([Reward(1.0, step_values_S=steps_S)]))
    torch.testing.assert_close(found.targets["returns"], torch.tensor([[0.2 + 0.9 * 0.8, 0.8]]))


def test_what_follows_the_first_success_does_not_count() -> None:
    """Finished within the first decision: the reward is given there, and the second one teaches nothing."""
    found = trained(PPO.Config(**PLAIN), value=0.5).advantages(episodes([Reward(1.0, finish_step=2)]))
    torch.testing.assert_close(found.advantages_BS, torch.tensor([[0.5, 0.5, 0.0, 0.0, 0.0, 0.0]]))
    assert found.targets["returns"][0, 0] == 1.0


def test_only_an_episode_that_was_cut_is_credited_with_what_follows() -> None:
    config = PPO.Config(**PLAIN | {"trace": 0.0}, bootstrap=True)
    found = trained(config, value=0.5).advantages(episodes([Reward(0.0), Reward(1.0, finish_step=6)]))
    torch.testing.assert_close(found.advantages_BS[:, -1], torch.tensor([0.9 * 0.5 - 0.5, 1.0 - 0.5]))


def test_shaping_does_not_punish_progress_up_to_a_cut() -> None:
    """Potentials 0, 0.4, 0.8. At a cut both decisions earn gamma · Phi(s') - Phi(s); at an end the potential is 0."""
    config = PPO.Config(**PLAIN | {"trace": 0.0}, bootstrap=True)
    phi_N = torch.tensor([0.0, 0.4, 0.8], dtype=torch.float64)
    steps_S = shaping(phi_N, 3, 6, 0.9).float()
    cut = Reward(0.0, step_values_S=steps_S, end_potential=0.8)
    found = trained(config).advantages(episodes([cut, replace(cut, finish_step=6)]))
    torch.testing.assert_close(found.advantages_BS[0, ::3], torch.tensor([0.9 * 0.4, 0.9 * 0.8 - 0.4]))
    torch.testing.assert_close(found.advantages_BS[1, ::3], torch.tensor([0.9 * 0.4, -0.4]))


def test_what_is_best_at_a_cut_does_not_move_with_the_shaping() -> None:
    """Where the critic knows the shaped values exactly (value - potential), advantages are those without shaping."""
    config = PPO.Config(**PLAIN, bootstrap=True)
    potential, value = 0.7, 0.5
    steps_S = torch.tensor([0.1, 0.0, 0.2, 0.0, 0.0, 0.3])
    plain = trained(config, value=value).advantages(episodes([Reward(0.0, step_values_S=steps_S)]))
    # The same potential everywhere: F = gamma · Phi - Phi of the first decision, and of the second less gamma · Phi,
    # which is told as the potential of the end.
    shaped_S = steps_S.clone()
    shaped_S[2] += 0.9 * potential - potential
    shaped_S[5] += -potential
    reward = Reward(0.0, step_values_S=shaped_S, end_potential=potential)
    shaped = trained(config, value=value - potential).advantages(episodes([reward]))
    torch.testing.assert_close(shaped.advantages_BS, plain.advantages_BS)


def test_without_rewards_of_steps_there_is_no_potential() -> None:
    """A wrapper that drops the steps of a shaped reward drops what they left out, too."""
    config = PPO.Config(**PLAIN, bootstrap=True)
    rewards = [Reward(1.0), Reward(1.0, end_potential=0.7)]
    plain, dropped = trained(config, value=0.5).advantages(episodes(rewards)).advantages_BS
    torch.testing.assert_close(dropped, plain)


def test_unjudged_rollouts_teach_nothing_and_count_nowhere() -> None:
    rewards = [Reward(1.0), Reward(None, error="busy"), Reward(0.0)]
    found = trained(PPO.Config()).advantages(episodes(rewards))
    without = trained(PPO.Config()).advantages(episodes([rewards[0], rewards[2]]))
    assert not found.advantages_BS[1].any()
    torch.testing.assert_close(found.advantages_BS[[0, 2]], without.advantages_BS)
    assert trained(PPO.Config()).keep(episodes(rewards)).tolist() == [True, False, True]


def test_advantages_of_the_batch_have_mean_0_and_spread_1() -> None:
    rewards = [Reward(1.0), Reward(0.0, finish_step=3), Reward(0.5), Reward(0.0)]
    found = trained(PPO.Config()).advantages(episodes(rewards)).advantages_BS[:, ::3]
    counted = torch.tensor([[1, 1], [1, 0], [1, 1], [1, 1]]).bool()
    assert float(found[counted].mean()) == pytest.approx(0, abs=1e-6)
    assert float(found[counted].std(correction=0)) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize(("value", "rewards", "wanted"), [(0.5, [1.0, 0.0], 0.0), (0.5, [1.0, 1.0], 0.0)])
def test_a_critic_that_knows_only_the_mean_explains_nothing(value: float, rewards: list, wanted: float) -> None:
    config = PPO.Config(trace=1.0)
    found = trained(config, value=value).advantages(episodes([Reward(r) for r in rewards]))
    assert found.targets["explained_variance"].tolist() == pytest.approx([wanted] * 2)


def test_explained_variance_by_hand() -> None:
    """Returns 1, 1, 0, 0 by values 0.75, 0.75, 0.25, 0.25: errors vary by 1/16, returns by 1/4."""
    optimizer = trained(PPO.Config(trace=1.0))
    values_BN = torch.tensor([[0.75, 0.75], [0.25, 0.25]])
    optimizer._values = lambda judged: (values_BN, torch.zeros(2))  # type: ignore[method-assign]
    found = optimizer.advantages(episodes([Reward(1.0), Reward(0.0)]))
    assert found.targets["explained_variance"].tolist() == pytest.approx([0.75, 0.75])


def test_the_batch_is_that_of_all_processes() -> None:
    rewards = [Reward(1.0), Reward(0.0), Reward(None, error="busy"), Reward(0.25, finish_step=3), Reward(0.0)]
    policy = StandInPolicy()
    rollouts = decided(policy, tasks_for(policy), len(rewards))
    whole = trained(PPO.Config(), value=0.3).advantages(Judged(tuple(rollouts), tuple(rewards), 1))

    def job(rows: slice):
        return lambda processes: trained(PPO.Config(), Parts(processes=processes), value=0.3).advantages(
            Judged(tuple(rollouts[rows]), tuple(rewards[rows]), 1)
        )

    # The third process has nothing.
    shares = in_threads([job(slice(0, 2)), job(slice(2, 5)), job(slice(5, 5))])
    together = torch.cat([share.advantages_BS for share in shares[:2]])
    torch.testing.assert_close(together, whole.advantages_BS)
    explained = [share.targets["explained_variance"][0].item() for share in shares[:2]]
    assert explained == pytest.approx([whole.targets["explained_variance"][0].item()] * 2)


def learning(features_BNF: Tensor, values_BN: Tensor, returns_BN: Tensor, mask_BS: Tensor, **more: Tensor) -> Minibatch:
    """Nothing but values to learn."""
    nothing = torch.zeros(*mask_BS.shape, 1)
    made = minibatch(nothing, nothing, torch.zeros(len(mask_BS)), mask_BS)
    length = mask_BS.shape[1] // values_BN.shape[1]
    chunk = replace(made.chunk, actions_BLA=torch.zeros(values_BN.numel(), length, 1))
    explained_B = torch.full((len(mask_BS),), 0.25)
    targets = {"values": values_BN, "returns": returns_BN, "explained_variance": explained_B}
    return replace(made, chunk=chunk, features_BNF=features_BNF, targets=targets, **more)


def test_the_value_loss_by_hand() -> None:
    """Values are now 0.6 everywhere. From 0.5 towards 1: the error 0.4² counts, whether clipped or not. From 0.1
    towards 0: moved by 0.5, clipped to 0.3, so the larger of 0.6² and 0.3². From 0.1 towards 1: clipped to 0.3, and the
    larger error 0.7² is that of the clipped value, which has no gradient."""
    optimizer = trained(PPO.Config(loss_average="token"), value=0.6)
    given = learning(
        torch.zeros(1, 4, FEATURES), torch.tensor([[0.5, 0.1, 0.1, 0.0]]), torch.tensor([[1.0, 0.0, 1.0, 9.0]]),
        torch.tensor([[1, 1, 1, 1, 1, 1, 0, 0]]).bool(),
    )  # fmt: skip
    found = optimizer.loss(given)
    # Two actions each, of which each decision counts both or none; half of the square, half of that weighs.
    assert found.total.item() == pytest.approx(0.5 * 0.5 * 2 * (0.4**2 + 0.6**2 + 0.7**2))
    assert float(found.weight) == 6
    assert numbers(found)["value_clip_fraction"] == pytest.approx(1 / 3)
    assert numbers(found)["explained_variance"] == pytest.approx(0.25)
    (gradient,) = torch.autograd.grad(found.total, [optimizer.critic.layers[-1].bias])
    assert gradient.item() == pytest.approx(0.5 * 2 * (-0.4 + 0.6))


@pytest.mark.parametrize("average", ["trajectory", "token", "horizon"])
def test_what_is_told_of_the_critic_is_of_what_counts(average: str) -> None:
    """Values are 0.6: from 0.1 towards 0 (clipped to 0.3 and no worse) and from 0.1 towards 1 (held back). What follows
    the end does not count, whatever the average of the loss divides by."""
    optimizer = trained(PPO.Config(loss_average=average), value=0.6)
    given = learning(
        torch.zeros(1, 4, FEATURES), torch.tensor([[0.1, 0.1, 0.0, 0.0]]), torch.tensor([[0.0, 1.0, 9.0, 9.0]]),
        torch.tensor([[1, 1, 1, 1, 0, 0, 0, 0]]).bool(),
    )  # fmt: skip
    found = numbers(optimizer.loss(given))
    assert found["value_loss"] == pytest.approx(0.5 * (0.6**2 + 0.7**2) / 2)
    assert found["value_clip_fraction"] == 0.5 and found["policy_loss"] == 0.0


def test_without_clipping_every_error_counts_as_it_is() -> None:
    optimizer = trained(PPO.Config(value_clip=None, ratio="decision", value_coefficient=2.0), value=0.6)
    given = learning(
        torch.zeros(1, 2, FEATURES), torch.tensor([[0.1, 0.1]]), torch.tensor([[1.0, 0.0]]), torch.ones(1, 4).bool()
    )
    found = optimizer.loss(given)
    assert found.total.item() == pytest.approx(2.0 * 0.5 * (0.4**2 + 0.6**2) / 2) and found.weight == 1


@pytest.mark.parametrize("trains", [False, True])
def test_the_critic_trains_the_policy_only_where_it_may(trains: bool) -> None:
    optimizer = trained(PPO.Config(critic_trains_policy=trains), value=0.6)
    torch.nn.init.ones_(optimizer.critic.layers[-1].weight)
    features_BNF = torch.randn(1, 2, FEATURES, generator=torch.Generator().manual_seed(0)).requires_grad_()
    targets = torch.zeros(1, 2), torch.ones(1, 2)
    optimizer.loss(learning(features_BNF, *targets, torch.ones(1, 4).bool())).total.backward()
    assert (features_BNF.grad is not None and bool(features_BNF.grad.any())) is trains


@pytest.mark.parametrize(
    ("ratio", "wanted"),
    [
        # Log-ratios 0.1 and 0.2 | 0.3, -0.1 masked; clipped at 1.28.
        ("factor", [-math.exp(0.1), -math.exp(0.2), -1.28]),
        ("action", [-1.28, -1.28]),  # exp(0.3), and exp(0.3)
        ("decision", [-1.28]),  # exp(0.6)
    ],
)
def test_ratios_are_of_what_was_asked_for(ratio: str, wanted: list[float]) -> None:
    optimizer = trained(PPO.Config(ratio=ratio, loss_average="token", value_coefficient=0.0))
    new_BSD = torch.tensor([[[0.1, 0.2], [0.3, 0.0], [math.nan, math.nan]]])
    mask_BS = torch.tensor([[True, True, False]])
    made = minibatch(new_BSD, torch.zeros(1, 3, 2), torch.tensor([1.0]), mask_BS)
    chunk = replace(made.chunk, actions_BLA=torch.zeros(1, 3, 2))
    targets = {"values": torch.zeros(1, 1), "returns": torch.zeros(1, 1), "explained_variance": torch.zeros(1)}
    found = optimizer.loss(replace(made, chunk=chunk, features_BNF=torch.zeros(1, 1, FEATURES), targets=targets))
    if ratio == "factor":
        wanted = [*wanted, -1.0]
    assert found.total.item() == pytest.approx(sum(wanted)) and float(found.weight) == len(wanted)


def test_a_policy_that_shows_nothing_is_refused() -> None:
    class Blind(StandInPolicy):
        def evaluate(self, *args, **keys):
            return replace(super().evaluate(*args, **keys), features_BF=None)

    policy, optimizer = Blind(), PPO()
    optimizer.attach(Parts(policy=policy, tasks=tasks_for(policy)))
    with pytest.raises(ConfigError, match=r"Blind shows nothing.*grpo"):
        optimizer.extra_modules(policy)
    optimizer.attach(Parts(policy=policy))
    with pytest.raises(ConfigError, match=r"optimizer\.args\.features"):
        optimizer.extra_modules(policy)


def test_a_wrong_width_is_said() -> None:
    with pytest.raises(ConfigError, match=r"features is 3, and the policy shows 16"):
        trained(PPO.Config(features=3)).advantages(episodes([Reward(1.0)]))


def test_the_critic_has_a_learning_rate_of_its_own() -> None:
    optimizer = trained(PPO.Config(learning_rate=1e-4, critic_learning_rate=1e-2, weight_decay=0.1))
    policy = StandInPolicy()
    parameters = [*policy.parameters(), *optimizer.critic.parameters()]
    groups = optimizer.torch_optimizer(parameters).param_groups
    scales = {id(p): group.get("lr_scale", 1.0) for group in groups for p in group["params"]}
    decays = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
    assert [scales[id(p)] for p in policy.parameters()] == [1.0] * 2
    assert all(scales[id(p)] == pytest.approx(100) for p in optimizer.critic.parameters())
    assert all(decays[id(p)] == (0.1 if p.ndim > 1 else 0.0) for p in parameters)


def test_judged_groups_of_other_tests_are_understood() -> None:
    """Where no policy is there to ask, the critic expects nothing."""
    assert PPO(PPO.Config(**PLAIN)).advantages(judged([[1.0, 0.0]])).advantages_BS.tolist() == [[1.0] * 2, [0.0] * 2]


def test_a_critic_that_is_trained_explains_what_it_can_see() -> None:
    """Every other picture is of a task that is always done."""
    optimizer = trained(PPO.Config(trace=1.0, loss_average="token", critic_hidden=16, critic_learning_rate=0.02))
    groups = episodes([Reward(float(row % 2)) for row in range(8)])
    features_BNF = rescore(StandInPolicy(), groups.rollouts, Parts()).features_BNF
    assert features_BNF is not None
    stepper = torch.optim.Adam(optimizer.critic.parameters(), lr=0.02)
    explained = []
    for _ in range(30):
        found = optimizer.advantages(groups)
        explained.append(float(found.targets["explained_variance"][0]))
        for _ in range(4):
            stepper.zero_grad()
            given = learning(features_BNF, found.targets["values"], found.targets["returns"], torch.ones(8, 6).bool())
            optimizer.loss(given).mean.backward()
            stepper.step()
    assert explained[0] == pytest.approx(0, abs=1e-6) and explained[-1] > 0.8
