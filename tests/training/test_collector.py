"""What the collector asks of its parts: which noise, which policy, which judgements; and what a judge may answer."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from learner import Learner, loop_config, parts_of, train
from seeing import CountingWorld, SeeingPolicy, UpReward, task

from gymnast_core.errors import ConfigError, ContractError
from gymnast_core.interfaces import Parts
from gymnast_core.learning import Judged
from gymnast_core.processes import Processes
from gymnast_core.rollouts.deal import Group, check_deal, deals
from gymnast_core.rollouts.imagine import imagine
from gymnast_core.seeds import seeded_generator
from gymnast_core.training.collect import Collector
from gymnast_core.training.judge import RewardsFailing, judge, refuse_failures
from gymnast_core.training.tally import Tally
from gymnast_core.training.tasks import TaskOrder
from gymnast_core.types import Metric, Reward, Rollout

TASKS = [task(f"task-{place}", place) for place in (3, 8, 20, 31)]
SEED = 3


@dataclass
class Noting(UpReward):
    """Keeps every rollout that it judged."""

    seen: list[Rollout] = field(default_factory=list)

    def score(self, rollouts: Sequence[Rollout]) -> list[Reward]:
        self.seen += rollouts
        return super().score(rollouts)


class Unmoved:
    """Nobody who listens."""

    def imagined(self, rollouts: Any) -> None: ...

    def judged(self, rollouts: Any, rewards: Any) -> None: ...

    def paid(self, usd: float | None) -> None: ...


def collector(judge: UpReward | None = None, learner: Learner | None = None, **loop: Any) -> Collector:
    config = loop_config(**{"max_draws": 1, **loop})
    return Collector(
        SeeingPolicy(), CountingWorld(), judge or UpReward(), learner or Learner(), TaskOrder(TASKS, SEED),
        config.loop, SEED, Processes(),
    )  # fmt: skip


def collect(made: Collector, iteration: int = 0, version: int = 0) -> tuple[list[Group], dict[str, float]]:
    tally = Tally()
    return made.collect(iteration, version, tally, Unmoved()), tally.numbers()


def drawn_by_hand(start: int, count: int) -> list[Any]:
    """Tasks `start` and on of a run: every pass has an order of its own, from the stream (seed, "tasks", pass)."""
    orders = [torch.randperm(4, generator=seeded_generator(SEED, "tasks", turn)).tolist() for turn in range(9)]
    return [TASKS[index] for order in orders for index in order][start : start + count]


class TestStreams:
    """Their names are part of what a run is: a resumed run, and one in several processes, draw the same."""

    def test_tasks(self) -> None:
        order = TaskOrder(TASKS, SEED)
        shown = [item.id for count in (3, 3, 5, 1) for item in order.draw(count)]
        assert shown == [item.id for item in drawn_by_hand(0, 12)]
        assert order.drawn == 12

    def test_rollouts(self, tmp_path: Path) -> None:
        """Each batch of 4 episodes has the stream (seed, "imagine", iteration, draw, place of its first episode)."""
        config = loop_config(
            iterations=2, max_draws=2, tasks_per_iteration=3, groups_per_update=99, imagine_batch_size=4
        )
        found = Noting()
        policy = SeeingPolicy()
        train(tmp_path, parts_of(policy, config, Learner(rate=0.0), found), config)
        assert len(found.seen) == 2 * 2 * 3 * 4
        at = 0
        for iteration in range(2):
            for draw in range(2):
                for place, item in enumerate(drawn_by_hand(6 * iteration + 3 * draw, 3)):
                    generator = seeded_generator(config.seed, "imagine", iteration, draw, 4 * place)
                    expected = imagine(
                        policy, CountingWorld(), [item] * 4, horizon=6, temperature=0.7, generator=generator
                    )
                    for mine, theirs in zip(found.seen[at : at + 4], expected, strict=True):
                        assert mine.task.id == theirs.task.id
                        assert torch.equal(mine.actions_NLA, theirs.actions_NLA)
                    at += 4

    def test_a_part_of_a_large_group_has_its_own(self) -> None:
        dealt = deals(TASKS[:2], 100, 6, 4)
        assert [batch.first for deal in dealt for batch in deal.batches] == [0, 4, 6, 10]


def test_what_fits_into_a_batch_is_imagined_in_one() -> None:
    resets: list[int] = []

    class Wide(CountingWorld):
        def reset(self, tasks: Any, **rest: Any) -> Any:
            resets.append(len(tasks))
            return super().reset(tasks, **rest)

    made = collector(tasks_per_iteration=75, imagine_batch_size=300, horizon=2)
    made._engine.attach(Parts(SeeingPolicy(), Wide(), UpReward()))
    collect(made)
    assert resets == [300]


def test_a_deal_is_refused_only_if_a_process_were_idle() -> None:
    # Batches of 3 groups (7 // 2), so 7 groups are 3 batches.
    assert len(deals([TASKS[0]] * 7, 0, 2, 7)) == 3
    check_deal(7, 2, 7, 3)


@pytest.mark.parametrize(
    ("groups", "batch", "advice"),
    [
        (2, 4, "raise loop.tasks_per_iteration to 3, or use 2 processes"),
        (
            2,
            8,
            "raise loop.tasks_per_iteration to 3, or use 2 processes; either way set loop.imagine_batch_size to 4 or "
            "less",
        ),
        (6, 24, "set loop.imagine_batch_size to 8 or less"),
    ],
)
def test_a_refused_deal_says_what_is_dealt_and_what_to_set(groups: int, batch: int, advice: str) -> None:
    count = -(-groups * 4 // batch)
    with pytest.raises(ConfigError) as refused:
        check_deal(groups, 4, batch, 3)
    assert str(refused.value) == (
        f"{groups} groups of 4 rollouts in batches of loop.imagine_batch_size={batch} are {count} batches, which "
        f"leaves some of 3 processes idle: {advice}."
    )


def test_rollouts_know_which_policy_acted(tmp_path: Path) -> None:
    """The number of gradient steps behind it, also of those that waited."""
    found, learner = Noting(), Learner(minibatch_size=4)
    config = loop_config(iterations=3, max_draws=1)
    loop = train(tmp_path, parts_of(SeeingPolicy(), config, learner, found), config)
    versions = [{rollout.version for rollout in found.seen if rollout.group // 4 == n} for n in range(3)]
    taken = [0, 0, 0]
    for minibatch in learner.seen:
        taken[minibatch.rollouts[0].group // 4] += 1
    assert versions == [{0}, {taken[0]}, {taken[0] + taken[1]}]
    assert 0 < taken[0] < taken[0] + taken[1] < loop.updater.updates


def test_the_optimizer_sees_what_it_decides_on() -> None:
    class Walking(Learner):
        """Keeps groups by where their rollouts ended, whatever they are worth."""

        def keep(self, judged: Judged) -> torch.Tensor:
            assert len(judged.rollouts) == len(judged.rewards) == judged.group_size
            return torch.tensor([judged.rollouts[0].task.id != "task-20"])

    groups, numbers = collect(collector(learner=Walking()))
    assert {group.rollouts[0].task.id for group in groups} == {"task-3", "task-8", "task-31"}
    assert (numbers["groups_kept"], numbers["groups_dropped"]) == (3, 1)


def test_groups_that_are_complete_stay_when_others_are_dropped() -> None:
    class Forgetful(UpReward):
        """Does not know about one rollout of the second group."""

        def score(self, rollouts: Sequence[Rollout]) -> list[Reward]:
            given = super().score(rollouts)
            odd = [index for index, rollout in enumerate(rollouts) if rollout.group == 1][:1]
            return [Reward(None, error="?") if index in odd else reward for index, reward in enumerate(given)]

    class All(Learner):
        def keep(self, judged: Judged) -> torch.Tensor:
            return torch.ones(1, dtype=torch.bool)

    settings: dict[str, Any] = {"rescore": 0, "max_error_rate": 0.5}
    groups, _ = collect(collector(Forgetful(), All(), drop_incomplete_groups=True, **settings))
    assert [group.label for group in groups] == [0, 2, 3]
    groups, _ = collect(collector(Forgetful(), All(), **settings))
    assert [group.label for group in groups] == [0, 1, 2, 3]


class Scoring(UpReward):
    """Gives any number."""

    kind = "score"

    def score(self, rollouts: Sequence[Rollout]) -> list[Reward]:
        return [Reward(-7.0 if index % 2 else 3.0) for index in range(len(rollouts))]


class TestTheJudge:
    def test_success_and_other_numbers_have_names_of_their_own(self) -> None:
        _, numbers = collect(collector(Scoring()))
        assert numbers["imagined_reward"] == pytest.approx(-2.0) and "imagined_success" not in numbers
        _, numbers = collect(collector())
        assert 0 <= numbers["imagined_success"] <= 1 and "imagined_reward" not in numbers

    def test_what_was_submitted_is_what_counts(self) -> None:
        class Elsewhere(UpReward):
            """Judges where it was handed over, and only there."""

            def submit(self, rollouts: Sequence[Rollout]) -> Future[list[Reward]]:
                scored: Future[list[Reward]] = Future()
                scored.set_result([Reward(0.25) for _ in rollouts])
                return scored

            def score(self, rollouts: Sequence[Rollout]) -> list[Reward]:
                raise AssertionError("judged twice")

        _, numbers = collect(collector(Elsewhere()))
        assert numbers["imagined_success"] == 0.25

    def test_nobody_is_asked_again_without_a_word(self) -> None:
        class Asleep(UpReward):
            def score(self, rollouts: Sequence[Rollout]) -> list[Reward]:
                self.calls.append(len(rollouts))
                return [Reward(None, error="asleep")] * len(rollouts)

        rollouts, asleep = [group.rollouts[0] for group in collect(collector())[0]], Asleep()
        assert [reward.error for reward in judge(asleep, rollouts)] == ["asleep"] * len(rollouts)
        assert asleep.calls == [len(rollouts)]
        assert judge(UpReward(), rollouts) == UpReward().score(rollouts)

    def test_too_many_failures_are_told_with_the_first_and_the_limit(self) -> None:
        with pytest.raises(RewardsFailing) as refused:
            refuse_failures(["asleep."], 2, 0.25, "loop.max_error_rate")
        assert str(refused.value) == (
            "1 of 2 rollouts could not be judged (limit loop.max_error_rate=0.25). Nothing was learned from them. "
            "First error: asleep."
        )
        refuse_failures(["asleep."], 4, 0.25, "loop.max_error_rate")

        class Asleep(UpReward):
            def score(self, rollouts: Sequence[Rollout]) -> list[Reward]:
                return [Reward(None, error="asleep.")] * len(rollouts)

        with pytest.raises(RewardsFailing, match=r"\(limit loop\.max_error_rate=0\.5\)"):
            collect(collector(Asleep(), max_error_rate=0.5))

    @pytest.mark.parametrize(
        ("kind", "change", "said"),
        [
            ("success", {"value": 1.5}, r"Given gave the reward 1\.5\. Success lies in \[0, 1\].*kind = \"score\"\.$"),
            ("success", {"value": -0.1}, r"Given gave the reward -0\.1\."),
            ("score", {"value": 1.5}, None),
            ("success", {"value": 1.0}, None),
            ("success", {"step_values_S": torch.zeros(5)}, r"Given gave step rewards of shape \(5,\) for .* 6 actions"),
            ("success", {"step_values_S": torch.zeros(6, 1)}, r"step rewards of shape \(6, 1\)"),
            ("success", {"step_values_S": torch.zeros(6)}, None),
        ],
    )
    def test_what_breaks_its_contract_is_refused(self, kind: Any, change: dict[str, Any], said: str | None) -> None:
        class Given(UpReward):
            def score(self, rollouts: Sequence[Rollout]) -> list[Reward]:
                return [replace(Reward(0.5), **change) for _ in rollouts]

        Given.kind = kind
        rollouts = [group.rollouts[0] for group in collect(collector())[0]]
        if said is None:
            assert len(judge(Given(), rollouts)) == len(rollouts)
            return
        with pytest.raises(ContractError, match=said):
            judge(Given(), rollouts)

    def test_one_answer_too_few_is_refused(self) -> None:
        class Short(UpReward):
            def score(self, rollouts: Sequence[Rollout]) -> list[Reward]:
                return super().score(rollouts)[1:]

        rollouts = [group.rollouts[0] for group in collect(collector())[0]]
        said = f"Short.score returned {len(rollouts) - 1} rewards for {len(rollouts)} rollouts"
        with pytest.raises(ContractError, match=said):
            judge(Short(), rollouts)


def test_a_tally_goes_on_where_it_was() -> None:
    """Numbers collected before a snapshot weigh what they weighed."""
    tally, again = Tally(), Tally()
    tally.add({"loss": Metric(torch.tensor(2.0), 3.0), "norm": Metric(5.0, combine="max")})
    tally.total(rollouts=4)
    again.load_state_dict(tally.state_dict())
    assert tally.state_dict() == {
        "loss": [2.0, 3.0, "mean"], "norm": [5.0, 1.0, "max"], "rollouts": [4.0, 1.0, "sum"]
    }  # fmt: skip
    again.add({"loss": Metric(6.0, 1.0), "norm": Metric(1.0, combine="max")})
    again.total(rollouts=2)
    assert again.numbers() == {"loss": 3.0, "norm": 5.0, "rollouts": 6.0}
