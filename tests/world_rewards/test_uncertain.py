"""Spread over noise by hand, and what it does to a reward."""

from __future__ import annotations

import pytest
import torch
from noisy_worlds import NoisyWorld, RowWorld, rollout, task

from gymnast_core.types import Step
from gymnast_world_rewards.uncertain import frame_spread


def test_spread_by_hand() -> None:
    """Pixels 0 and 255, 0 and 51: standard deviations 1/√2 and 0.2/√2 of full scale."""
    first = torch.zeros(2, 1, 1, 1, 3, dtype=torch.uint8)
    second = torch.tensor([255, 51], dtype=torch.uint8)[:, None, None, None, None].expand(-1, 1, 1, 1, 3)
    assert frame_spread([first, second]).tolist() == pytest.approx([0.5**0.5, 0.2 * 0.5**0.5])


def test_a_world_without_noise_is_sure(build) -> None:
    reward = build("uncertain", NoisyWorld()).score([rollout(task(20), [100.0, 100.0])])[0]
    assert reward.value == 1.0 and reward.numbers == {"spread": 0.0, "unsure": 0.0}


LIAR = [200, 255]
"""Shown where a sure world shows 1 and 2: a spread of (199 + 253)/2/255/√2 over two imaginations and itself."""
SPREAD = ((199 + 253) / 2 / 255) * 3**-0.5


def test_what_differs_is_unscored(build) -> None:
    reward = build("uncertain", NoisyWorld()).score([rollout(task(0), [1.0, 1.0], shown=LIAR)])[0]
    assert reward.value is None and "unsure" in reward.error and reward.numbers["unsure"] == 1.0
    assert reward.numbers["spread"] == pytest.approx(SPREAD, abs=1e-3)


@pytest.mark.parametrize(("frames", "spread"), [("end", 253 / 255 * 3**-0.5), ("worst", 253 / 255 * 3**-0.5)])
def test_frames_may_be_chosen(build, frames: str, spread: float) -> None:
    reward = build("uncertain", NoisyWorld(), frames=frames).score([rollout(task(0), [1.0, 1.0], shown=LIAR)])[0]
    assert reward.numbers["spread"] == pytest.approx(spread, abs=1e-3)


def test_or_it_costs_something(build) -> None:
    model = build("uncertain", NoisyWorld(), otherwise="penalty", penalty=1.0, threshold=0.2)
    reward = model.score([rollout(task(0), [1.0, 1.0], shown=LIAR)])[0]
    assert reward.value == pytest.approx(1.0 - (SPREAD - 0.2), abs=1e-3)
    harsh = build("uncertain", NoisyWorld(), otherwise="penalty", penalty=100.0)
    harsh_reward = harsh.score([rollout(task(0), [1.0, 1.0], shown=LIAR)])[0]
    assert (harsh_reward.value, harsh_reward.success, reward.success) == (0.0, 1.0, 1.0)


def test_other_worlds_are_an_ensemble(build) -> None:
    """The run's world agrees with what was shown; another one does not."""
    honest = rollout(task(20), [1.0, 1.0])
    assert build("uncertain", NoisyWorld(), imaginations=1).score([honest])[0].numbers["spread"] == 0.0
    lying = type("Lying", (NoisyWorld,), {"__init__": lambda self, config=None: NoisyWorld.__init__(self, invents=1.0)})
    from noisy_worlds import Building

    with Building().known(lying=lying):
        reward = build("uncertain", NoisyWorld(), imaginations=1, also=[{"name": "lying"}]).score([honest])[0]
    assert reward.value is None and reward.numbers["spread"] > 0.3


def test_it_does_not_depend_on_neighbours(build) -> None:
    model = build("uncertain", RowWorld(noise=20.0), threshold=1.0)
    rollouts = [rollout(task(n), [1.0, 2.0]) for n in range(5)]
    together = [reward.numbers["spread"] for reward in model.score(rollouts)]
    assert len(set(together)) == 5
    assert [model.score([one])[0].numbers["spread"] for one in rollouts] == together


def test_a_world_that_loses_an_episode_is_an_error(build) -> None:
    class Losing(RowWorld):
        def step(self, state, actions_BLA) -> Step:
            found = super().step(state, actions_BLA)
            return Step(found.frames_BLVHWC, errors=("it crashed",) * len(actions_BLA))

    reward = build("uncertain", Losing()).score([rollout(task(20), [1.0, 1.0])])[0]
    assert reward.value is None and "it crashed" in reward.error
