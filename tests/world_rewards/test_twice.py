"""A success must come back from other noise: known inventions are found out, real successes are kept."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import replace

import pytest
from noisy_worlds import NoisyWorld, RowWorld, rollout, task

from gymnast_core.errors import ConfigError
from gymnast_core.interfaces import Parts
from gymnast_core.plugins.registry import registries

REAL, FAILED = [100.0, 100.0], [1.0, 1.0]


def invented(number: int):
    """A failure that was shown as a success."""
    return rollout(task(0, f"invented-{number}"), FAILED, shown=[0, 255])


def test_a_real_success_comes_back(build) -> None:
    reward = build("twice", NoisyWorld()).score([rollout(task(20), REAL)])[0]
    assert reward.value == 1.0 and reward.numbers == {"came_back": 1.0, "imagined_again": 1.0}
    assert "came back in 1 of 1" in reward.rationale and reward.cost_usd == pytest.approx(0.02)


def test_a_failure_is_believed_at_once(build) -> None:
    world = NoisyWorld()
    reward = build("twice", world).score([rollout(task(20), FAILED)])[0]
    assert reward.value == 0.0 and reward.numbers == {"imagined_again": 0.0} and world.batches == []


def test_an_invented_success_is_a_failure(build) -> None:
    reward = build("twice", NoisyWorld(), judge={"finishes": True}).score([invented(0)])[0]
    assert (
        reward.value == 0.0
        and reward.finish_step is None
        and reward.numbers == {"came_back": 0.0, "imagined_again": 1.0}
    )
    assert "came back in 0 of 1" in reward.rationale and reward.partial == pytest.approx(2 / 255)


def test_or_unscored_if_that_is_wanted(build) -> None:
    reward = build("twice", NoisyWorld(), otherwise="unscored").score([invented(0)])[0]
    assert (
        reward.value is None
        and "came back in 0 of 1" in reward.error
        and reward.numbers == {"came_back": 0.0, "imagined_again": 1.0}
    )
    assert reward.cost_usd == pytest.approx(0.02)


def test_votes_for_what_did_not_come_back_are_still_known(build) -> None:
    """The judge was heard, and believed it: it is `twice` that does not."""
    model = build("twice", NoisyWorld(), otherwise="unscored")
    score = model.judge.score
    model.judge.score = lambda rollouts: [replace(reward, votes=(1, 0, 1)) for reward in score(rollouts)]
    reward = model.score([invented(0)])[0]
    assert reward.error is not None and reward.votes == (1.0, 0.0, 1.0) and not reward.abstained


@pytest.mark.parametrize(("rounds", "needed", "share"), [(1, None, 0.5), (3, None, 0.125), (3, 2, 0.5), (3, 1, 0.875)])
def test_how_often_inventions_pass_is_what_chance_says(build, rounds: int, needed: int | None, share: float) -> None:
    """The world invents in half of its courses: of n rounds, k come back with the probability of a coin."""
    model = build("twice", RowWorld(invents=0.5), rounds=rounds, needed=needed)
    rewards = model.score([invented(n) for n in range(600)])
    passed = sum(reward.value == 1.0 for reward in rewards)
    assert passed / 600 == pytest.approx(share, abs=4 * (share * (1 - share) / 600) ** 0.5)


def test_verdicts_do_not_depend_on_neighbours_and_repeat(build) -> None:
    rollouts = [invented(n) for n in range(12)]
    model = build("twice", RowWorld(invents=0.5))
    together = [reward.value for reward in model.score(rollouts)]
    assert {0.0, 1.0} == set(together)
    assert [model.score([one])[0].value for one in rollouts] == together
    assert [r.value for r in build("twice", RowWorld(invents=0.5)).score(rollouts[::-1])][::-1] == together
    other = [reward.value for reward in build("twice", RowWorld(invents=0.5), seed=1).score(rollouts)]
    assert other != together


def test_what_cannot_be_judged_again_is_an_error(build) -> None:
    reward = build("twice", NoisyWorld(), judge={"fails_below": 100}).score([invented(0)])[0]
    assert reward.value is None and "1 of 1 could not be judged" in reward.error and "too dark" in reward.error


def test_what_could_not_be_judged_at_all_stays_an_error(build) -> None:
    world = NoisyWorld()
    reward = build("twice", world, judge={"fails_below": 100}).score([rollout(task(0), FAILED)])[0]
    assert reward.error == "too dark" and world.batches == []


def test_ctrl_c_stops_what_the_judge_was_asked(build) -> None:
    """Nothing more may be sent to a paid judge, or paid."""

    class Interrupted(Future):
        def result(self, timeout: float | None = None) -> object:
            raise KeyboardInterrupt

    asked = Interrupted()
    model = build("twice", NoisyWorld())
    model.judge.submit = lambda rollouts: asked
    with pytest.raises(KeyboardInterrupt):
        model.score([invented(0)])
    assert asked.cancelled()


def test_it_may_have_a_world_of_its_own(build) -> None:
    lying, honest = NoisyWorld(invents=1.0), {"name": "noisy"}
    assert build("twice", lying).score([invented(0)])[0].value == 1.0
    model = build("twice", lying, world_model=honest)
    assert model.score([invented(0)])[0].value == 0.0
    # It is introduced to the parts of the run, as every part is, and what it is told is looked at before it is needed.
    own = model._imagining.world
    assert own.parts.world_model is own and own.parts.reward_model is model
    with pytest.raises(ConfigError, match="gold"):
        build("twice", lying, world_model={"name": "noisy", "args": {"gold": 1}})


def test_without_a_world_it_says_what_to_do(build) -> None:
    with pytest.raises(ConfigError, match=r"no world model.*reward_model\.args\.world_model"):
        build("twice").score([invented(0)])


def test_what_it_is_built_around_is_checked(build) -> None:
    with pytest.raises(ConfigError, match=r"reward_model\.args\.judge\.name"):
        registries().reward_models.build("twice", {})
    with pytest.raises(ConfigError, match="gives scores"):
        build("twice", judge={"kind": "score"})
    with pytest.raises(ConfigError, match="cannot be more"):
        build("twice", rounds=2, needed=3)


def test_the_judge_is_told_what_is_coming_and_kept(build) -> None:
    model = build("twice", NoisyWorld(), rounds=2)
    model.preflight(10, 5)
    assert model.judge.planned == 30
    fresh = build("twice", NoisyWorld(), rounds=2)
    fresh.load_state_dict(model.state_dict())
    assert fresh.judge.planned == 30
    model.attach(Parts())
    model.close()
    model.close()
    assert model.judge.closed == 2
