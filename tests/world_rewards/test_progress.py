"""Potential-based rewards: whatever the judge thinks of the way, an episode is worth what it was worth."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from noisy_worlds import rollout, task

from gymnast_core.errors import ConfigError
from gymnast_core.interfaces import Parts
from gymnast_core.types import Reward, Rollout
from gymnast_optimizers.ppo import PPO
from gymnast_optimizers.reinforce import ReinforcePlusPlus
from gymnast_world_rewards.progress import prefix, shaping


def test_by_hand(build) -> None:
    """Brightness 51, 102, 153, 204 after each decision of one action: potentials 0.2, 0.4, 0.6, then the end."""
    reward = build("progress").score([rollout(task(0), [51.0] * 4, length=1)])[0]
    assert reward.value == 1.0
    torch.testing.assert_close(reward.step_values_S, torch.tensor([0.2, 0.2, 0.2, -0.6 + 1.0]))
    assert reward.numbers["progress"] == pytest.approx(0.4) and "on the way 0.20 0.40 0.60" in reward.rationale
    assert reward.cost_usd == pytest.approx(0.04)


def test_looks_may_be_rarer(build) -> None:
    reward = build("progress", every=2, weight=0.5).score([rollout(task(0), [51.0] * 4, length=1)])[0]
    torch.testing.assert_close(reward.step_values_S, torch.tensor([0.0, 0.2, 0.0, -0.2 + 1.0]))


@pytest.mark.parametrize(("args", "wanted"), [({}, 0.8), ({"weight": 0.5}, 0.4), ({"judge": {"partial": False}}, 1.0)])
def test_the_potential_of_the_last_frame_is_told(build, args: dict, wanted: float) -> None:
    """Brightness 204 at the horizon: a cut, for an optimizer that expects more to come."""
    reward = build("progress", **args).score([rollout(task(0), [51.0] * 4, length=1)])[0]
    assert reward.end_potential == pytest.approx(wanted)


def test_a_finished_episode_ends_there(build) -> None:
    """Bright after two of four decisions; what follows is neither judged nor rewarded."""
    model = build("progress", judge={"finishes": True})
    reward = model.score([rollout(task(0), [102.0] * 4, length=1)])[0]
    torch.testing.assert_close(reward.step_values_S, torch.tensor([0.4, -0.4 + 1.0, 0.0, 0.0]))
    assert reward.finish_step == 2 and model.judge.seen == [255, 102]


def test_partial_credit_may_be_what_it_is_worth(build) -> None:
    reward = build("progress", end="partial").score([rollout(task(0), [51.0] * 2, length=1)])[0]
    assert reward.value == pytest.approx(0.4)
    torch.testing.assert_close(reward.step_values_S, torch.tensor([0.2, 0.2]))
    error = build("progress", end="partial", judge={"partial": False}).score([rollout(task(0), [51.0] * 2)])[0].error
    assert "no partial credit" in error


def test_a_look_that_fails_is_an_error(build) -> None:
    model = build("progress", judge={"fails_below": 60})
    dark, bright = model.score([rollout(task(0), [51.0] * 4, length=1), rollout(task(60), [51.0] * 2, length=1)])
    assert "on the way: too dark" in dark.error and dark.cost_usd == pytest.approx(0.04) and bright.value == 0.0


def test_what_a_look_said_before_it_failed_is_passed_on(build) -> None:
    model = build("progress", judge={"fails_below": 60})
    score = model.judge.score

    def torn(rollouts: list[Rollout]) -> list[Reward]:
        return [
            replace(reward, votes=(1, 0), abstained=True) if reward.error else replace(reward, votes=(1, 1))
            for reward in score(rollouts)
        ]

    model.judge.score = torn
    dark, bright = model.score([rollout(task(0), [51.0] * 4, length=1), rollout(task(60), [51.0] * 2, length=1)])
    assert (dark.votes, dark.abstained) == ((1.0, 0.0), True)
    assert (bright.votes, bright.abstained) == ((1.0, 1.0), False)


POTENTIALS = st.lists(st.floats(-3, 3), min_size=2, max_size=9)


@given(POTENTIALS, st.integers(1, 4), st.data(), st.floats(0.1, 1.0))
def test_shaping_telescopes(phi: list[float], length: int, data: st.DataObject, discount: float) -> None:
    """Discounted by decisions, what the steps add is 0, for any potential, horizon and end."""
    decisions = len(phi) - 1
    end = data.draw(st.integers(1, decisions * length))
    steps_S = shaping(torch.tensor(phi, dtype=torch.float64), length, end, discount)
    powers_N = discount ** torch.arange(decisions, dtype=torch.float64)
    assert float((steps_S.reshape(decisions, length).sum(1) * powers_N).sum()) == pytest.approx(0, abs=1e-9)
    assert not steps_S[end:].any()


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.floats(-60, 60), min_size=2, max_size=6), st.integers(1, 3), st.floats(0, 3))
def test_steps_add_up_to_the_value(build, actions: list[float], every: int, weight: float) -> None:
    model = build("progress", every=every, weight=weight, judge={"finishes": True})
    for reward in model.score([rollout(task(grey), actions, length=1) for grey in (0, 100, 190)]):
        assert float(reward.step_values_S.sum()) == pytest.approx(reward.value, abs=1e-5)


def test_the_optimizers_discount_must_be_the_same(build) -> None:
    model = build("progress")
    model.attach(Parts(optimizer=PPO()))
    with pytest.raises(ConfigError, match="two discounts"):
        model.attach(Parts(optimizer=PPO(PPO.Config(discount=0.9))))
    # One that knows no discount takes rewards as they are.
    model.attach(Parts(optimizer=ReinforcePlusPlus()))
    with pytest.raises(ConfigError, match=r"discount is 0\.9 and that of the optimizer 1:"):
        build("progress", discount=0.9).attach(Parts(optimizer=ReinforcePlusPlus()))


def test_a_prefix_is_the_rollout_up_to_there() -> None:
    whole = rollout(task(0), [1.0, 2.0, 3.0, 4.0])
    whole = replace(whole, outcome_S=torch.tensor([0.0, 1.0, 0.0, 0.0]), proprio_TP=torch.zeros(5, 2))
    part = prefix(whole, 1)
    assert part.horizon == 2 and part.outcome == 1.0 and part.proprio_TP.shape == (3, 2)
    assert part.frames_TVHWC[:, 0, 0, 0, 0].tolist() == [0, 1, 3]
