"""Every one of them keeps the contract of reward models, gives what the loop logs, and comes back from a snapshot."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from noisy_worlds import Bright, NoisyWorld, RowWorld, rollout, task

from gymnast_core.config import LoopConfig
from gymnast_core.config.typed import typed
from gymnast_core.interfaces import Parts
from gymnast_core.learning import Judged
from gymnast_core.plugins.registry import registries
from gymnast_core.processes import Processes
from gymnast_core.rollouts.state import reward_from_state, to_state
from gymnast_core.success import success_of
from gymnast_core.testing import check_reward_model
from gymnast_core.testing.making import make_tasks
from gymnast_core.training.collect import Collector
from gymnast_core.training.tally import Tally
from gymnast_core.types import Episode, Reward
from gymnast_optimizers.grpo import GRPO

NAMES = ("twice", "uncertain", "verified", "progress", "partial-credit")


@pytest.mark.parametrize("world", [NoisyWorld, RowWorld])
@pytest.mark.parametrize("name", NAMES)
def test_it_keeps_the_contract(build, name: str, world: type[NoisyWorld]) -> None:
    starts = make_tasks(2, 32, action_dim=1)
    shown = [torch.cat([start.frames_TVHWC, start.frames_TVHWC.flip(2)]) for start in starts]
    starts = [
        replace(
            start,
            expert=Episode(f"e{n}", frames_TVHWC=frames, actions_TA=torch.ones(1, 1), instruction=start.instruction),
        )
        for n, (start, frames) in enumerate(zip(starts, shown, strict=True))
    ]
    made = world(noise=20.0)
    args = {"threshold": 1.0} if name == "uncertain" else {}
    verified = check_reward_model(build(name, **args), tasks=starts, action_dim=1, parts=Parts(world_model=made))
    assert any("judged" in line for line in verified)


@pytest.mark.parametrize(
    "name, args, places",
    [
        ("twice", {}, [0, 8]),
        ("partial-credit", {}, [0, 8]),
        ("uncertain", {"frames": "end"}, [0, 8]),
        ("uncertain", {"frames": "worst"}, list(range(9))),
        ("progress", {}, list(range(9))),
    ],
)
def test_it_announces_what_it_looks_at(name: str, args: dict, places: list[int]) -> None:
    """The success classifier looks at the first and the last frame."""
    kind = registries().reward_models.load(name)
    judge = {"name": "success-classifier", "args": {"instructions": ["push the block"]}}
    assert list(kind.looks_at(typed(kind.Config, {"judge": judge, **args}, "reward_model.args"), 9)) == places


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_asked_of_nothing(build, name: str) -> None:
    assert build(name).score([]) == []


def test_an_episode_that_the_world_lost_is_never_shown(build) -> None:
    lost = replace(rollout(task(20), [1.0, 1.0]), error="the simulator died")
    for name in ("twice", "uncertain", "progress", "partial-credit"):
        model = build(name, NoisyWorld())
        assert model.score([lost])[0].error and model.judge.seen == []


def test_one_around_another(build) -> None:
    """Progress of a judge whose successes have to come back."""
    inner = {"name": "twice", "args": {"judge": {"name": "bright"}}}
    model = registries().reward_models.build("progress", {"judge": inner})
    model.attach(Parts(world_model=NoisyWorld(), reward_model=model))
    real, invented = model.score([rollout(task(0), [150.0, 60.0], length=1), rollout(task(0), [1.0, 1.0], [1, 255], 1)])
    assert real.value == 1.0 and invented.value == 0.0
    assert real.numbers["came_back"] == 1.0 and invented.numbers["came_back"] == 0.0


def test_partial_credit_is_mixed_in(build) -> None:
    reward = build("partial-credit", share=0.25).score([rollout(task(0), [51.0, 51.0])])[0]
    assert reward.value == pytest.approx(0.25 * 0.4) and reward.success == 0.0
    assert reward.numbers == {"success": 0.0, "reward": pytest.approx(0.1)}
    assert build("partial-credit", share=0.0).score([rollout(task(0), [51.0, 51.0])])[0].success is None
    error = build("partial-credit", judge={"partial": False}).score([rollout(task(0), [51.0, 51.0])])[0].error
    assert "no partial credit" in error


def test_a_group_that_failed_teaches_by_its_partial_credit_and_counts_as_failed(build) -> None:
    """What `partial-credit` is for; the same judge alone gives plain successes, and such a group teaches nothing."""
    group = tuple(rollout(task(0), [grey, grey]) for grey in (1.0, 2.0, 4.0))
    rows = (("partial-credit", {}, True), ("progress", {"end": "partial"}, True), ("progress", {}, False))
    for name, args, kept in rows:
        model = build(name, **args)
        rewards = model.score(group)
        optimizer = GRPO(GRPO.Config(group_size=3, accuracy_bounds=[0.0, 1.0]))
        optimizer.attach(Parts(reward_model=model))
        assert optimizer.keep(Judged(group, tuple(rewards), 3)).tolist() == [kept]
        assert [success_of(reward) for reward in rewards] == [0.0, 0.0, 0.0]


def test_successes_of_graded_rewards_are_logged_as_successes(build) -> None:
    nobody, model = object(), build("partial-credit")
    collector = Collector(nobody, nobody, model, nobody, nobody, LoopConfig(), 0, Processes())  # type: ignore[arg-type]
    rewards = model.score([rollout(task(0), [grey, grey]) for grey in (5.0, 40.0, 110.0)])
    tally = Tally()
    collector._account(rewards, tally, SimpleNamespace(paid=lambda usd: None))  # type: ignore[arg-type]
    numbers = tally.numbers()
    assert numbers["imagined_success"] == pytest.approx(1 / 3)
    assert numbers["judge_reward"] == pytest.approx(sum(r.value for r in rewards) / 3)


def test_numbers_go_through_a_snapshot() -> None:
    reward = Reward(0.5, numbers={"came_back": 1.0}, success=1.0, end_potential=0.3)
    assert reward_from_state(to_state(reward)) == reward
    with pytest.raises(ValueError, match="leave out"):
        Reward(0.5, numbers={"a": float("nan")})


def test_the_loop_logs_their_means() -> None:
    """Over the rollouts that have them."""
    nobody = object()
    collector = Collector(nobody, nobody, Bright(), nobody, nobody, LoopConfig(), 0, Processes())  # type: ignore[arg-type]
    tally = Tally()
    rewards = [
        Reward(1.0, numbers={"came_back": 1.0}),
        Reward(0.0, numbers={"came_back": 0.0}),
        Reward(0.0),
        Reward(None, error="?", numbers={"came_back": 0.0, "spread": 0.5}),
    ]
    collector._account(rewards, tally, SimpleNamespace(paid=lambda usd: None))  # type: ignore[arg-type]
    numbers = tally.numbers()
    assert numbers["judge_came_back"] == pytest.approx(1 / 3) and numbers["judge_spread"] == 0.5


@pytest.mark.parametrize("name", ["twice", "uncertain"])
def test_a_judge_that_looks_at_nothing_does_not_make_nothing_imaginable(name: str) -> None:
    judge = {"name": "random", "args": {"probability": 1.0}}
    args = {"threshold": 1.0} if name == "uncertain" else {}
    model = registries().reward_models.build(name, {"judge": judge, **args})
    model.attach(Parts(world_model=NoisyWorld(), reward_model=model))
    sound = rollout(task(0), [1.0, 1.0])
    blank = replace(sound, frames_TVHWC=sound.frames_TVHWC[:0])
    first, second = model.score([blank, sound])
    assert "cannot be imagined again" in first.error and second.value == 1.0
    assert check_reward_model(model, tasks=make_tasks(2, 32), action_dim=1, parts=Parts(world_model=RowWorld()))
