"""What an optimizer answers in a run, and numbers that are not finite: the component that gave them is named."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from learner import Learner, loop_config, parts_of, train
from seeing import CountingWorld, SeeingPolicy, task
from test_update import Imitating, demonstrations
from torch import Tensor

from gymnast_core.errors import ContractError
from gymnast_core.learning import Advantages, Judged, Minibatch
from gymnast_core.rollouts.answers import check_finite
from gymnast_core.rollouts.imagine import imagine
from gymnast_core.rollouts.steps import check_readings
from gymnast_core.seeds import seeded_generator
from gymnast_core.training.answers import check_numbers, checked_advantages
from gymnast_core.training.update import NonFiniteGradient
from gymnast_core.types import ActionChunk, Episode, Evaluation, LossSum, Metric, Observation, Reward, Step

LOSSES: dict[str, tuple[Callable[[LossSum], Any], str]] = {
    "a tensor": (lambda loss: loss.total, "returned a Tensor, not a LossSum"),
    "a vector": (lambda loss: replace(loss, total=loss.total.reshape(1)), r"gave the total \(1,\)"),
    "detached": (lambda loss: replace(loss, total=loss.total.detach()), "gave a total without a gradient"),
    "no weight": (lambda loss: replace(loss, weight=None), "gave a weight None"),
    "the weight 0": (lambda loss: replace(loss, total=loss.total + 1, weight=0.0), "with the weight 0"),
    "a negative weight": (lambda loss: replace(loss, weight=-1.0), "gave the weight -1.0"),
    "a weight of NaN": (lambda loss: replace(loss, weight=torch.tensor(math.nan)), "gave the weight nan"),
    "metrics in a list": (lambda loss: replace(loss, metrics=[]), "gave metrics as list"),
}

METRICS: dict[Any, tuple[Any, str]] = {
    **{
        name: (Metric(1.0), "which is a number of the run's own")
        for name in ("step", "rollouts", "cost_usd", "unmoved")
    },
    "imagined_success": (Metric(1.0), "which is a number of the run's own"),
    "judge_height": (Metric(1.0), "which is a number of the run's own"),
    "a, b\n": (Metric(1.0), "names begin with a letter"),
    "": (Metric(1.0), "names begin with a letter"),
    3: (Metric(1.0), "names begin with a letter"),
    "plain": (1.0, "gave the metric 'plain' as 1.0"),
    "odd": (Metric(1.0, combine="median"), "expected a Metric that says mean, sum, max, min"),  # type: ignore[arg-type]
    "text": (Metric("high"), "expected one number each"),  # type: ignore[arg-type]
    "vector": (Metric(torch.ones(2)), "expected one number each"),
}

ADVANTAGES: dict[str, tuple[Callable[[Advantages], Any], str]] = {
    "a tensor": (lambda found: found.advantages_BS, "returned a Tensor, not an Advantages"),
    "NaN": (lambda found: replace(found, advantages_BS=found.advantages_BS * math.nan), "infinite or NaN"),
    "a column": (lambda found: replace(found, advantages_BS=found.advantages_BS[:, :1]), r"expected torch.float32 \("),
    "whole numbers": (lambda found: replace(found, advantages_BS=found.advantages_BS.long()), "torch.int64"),
    "a row less": (lambda found: replace(found, targets={"returns": found.advantages_BS[1:]}), "gave returns of shape"),
    "an array": (lambda found: replace(found, targets={"returns": [1.0]}), "gave returns as list"),
}


@dataclass
class Odd(Learner):
    """Answers in another form than it should."""

    loss_as: Callable[[LossSum], Any] = lambda loss: loss
    advantages_as: Callable[[Advantages], Any] = lambda found: found

    def loss(self, minibatch: Minibatch) -> LossSum:
        answer: LossSum = self.loss_as(super().loss(minibatch))
        return answer

    def advantages(self, judged: Judged) -> Advantages:
        answer: Advantages = self.advantages_as(super().advantages(judged))
        return answer


class Blurred(SeeingPolicy):
    """Does not know how likely its actions are."""

    def evaluate(self, observation: Observation, chunk: ActionChunk, **options: Any) -> Evaluation:
        found = super().evaluate(observation, chunk, **options)
        return replace(found, log_prob_BLD=found.log_prob_BLD * math.nan)


def refused(folder: Path, optimizer: Learner, said: str, policy: SeeingPolicy | None = None, **parts: Any) -> None:
    policy, config = policy or SeeingPolicy(), loop_config()
    with pytest.raises((ContractError, NonFiniteGradient), match=said):
        train(folder, replace(parts_of(policy, config, optimizer), **parts), config)
    assert policy.scale.item() == pytest.approx(0.3)
    assert not (folder / "policy").exists()


@pytest.mark.parametrize("fault", LOSSES)
def test_a_loss_that_teaches_nothing_is_refused(fault: str, tmp_path: Path) -> None:
    change, said = LOSSES[fault]
    refused(tmp_path, Odd(loss_as=change), rf"^Odd\.loss .*{said}")


@pytest.mark.parametrize("name", METRICS)
def test_a_metric_that_a_run_cannot_log_is_refused(name: Any, tmp_path: Path) -> None:
    metric, said = METRICS[name]
    refused(tmp_path, Odd(loss_as=lambda loss: replace(loss, metrics={name: metric})), rf"^Odd\.loss .*{said}")


@pytest.mark.parametrize("fault", ADVANTAGES)
def test_advantages_of_another_form_are_refused(fault: str, tmp_path: Path) -> None:
    change, said = ADVANTAGES[fault]
    refused(tmp_path, Odd(advantages_as=change), rf"^Odd\.advantages .*{said}")


def test_what_was_not_judged_may_hold_anything() -> None:
    tasks = [task("a", 3), task("b", 20)]
    generator = seeded_generator(5, "unjudged")
    rollouts = imagine(SeeingPolicy(), CountingWorld(), tasks, horizon=4, temperature=0.7, generator=generator)
    rewards = (Reward(1.0, finish_step=2), Reward(None, error="the judge is away"))
    judged = Judged(tuple(rollouts), rewards, 2)
    found = Advantages(torch.ones(2, 4))
    found.advantages_BS[0, 2:] = math.nan
    found.advantages_BS[1] = math.nan
    assert checked_advantages(Learner(), found, judged) is found
    found.advantages_BS[0, 1] = math.nan
    with pytest.raises(ContractError, match="infinite or NaN"):
        checked_advantages(Learner(), found, judged)


def test_a_demonstration_loss_that_teaches_nothing_names_the_policy(tmp_path: Path) -> None:
    class Idle(Imitating):
        def imitation_loss(self, episodes: Sequence[Episode], *, generator: torch.Generator) -> LossSum:
            found = super().imitation_loss(episodes, generator=generator)
            return replace(found, total=found.total.detach())

    learner = Learner(demonstrations_per_rollout=1.0)
    said = r"^Idle\.imitation_loss gave a total without a gradient"
    refused(tmp_path, learner, said, Idle(), demonstrations=demonstrations())


@pytest.mark.parametrize("rate", [math.nan, -0.1, math.inf, None])
def test_a_learning_rate_is_a_finite_number(rate: Any, tmp_path: Path) -> None:
    class Steep(Learner):
        def learning_rate(self, update: int) -> float:
            answer: float = rate
            return answer

    refused(tmp_path, Steep(), rf"^Steep\.learning_rate is {rate} for step 0")


@pytest.mark.parametrize(
    ("name", "value"),
    [("max_grad_norm", math.nan), ("epochs", 0), ("group_size", "2"), ("demonstrations_per_rollout", math.inf)],
)
def test_settings_that_no_run_can_work_with_are_refused(name: str, value: Any) -> None:
    learner = Learner()
    check_numbers(learner)
    setattr(learner, name, value)
    with pytest.raises(ContractError, match=rf"^Learner\.{name} is "):
        check_numbers(learner)


class TestNotFinite:
    """Numbers that are infinite or NaN: whoever gave them is named, not the learning rate alone."""

    def test_actions(self, tmp_path: Path) -> None:
        class Wild(SeeingPolicy):
            def act(self, observation: Observation, **options: Any) -> ActionChunk:
                chunk = super().act(observation, **options)
                chunk.actions_BLA[-1, -1] = math.inf
                return chunk

        refused(tmp_path, Learner(), r"^Wild\.act gave actions that are infinite or NaN", Wild())

    def test_some_log_probabilities(self, tmp_path: Path) -> None:
        class Vague(SeeingPolicy):
            def act(self, observation: Observation, **options: Any) -> ActionChunk:
                chunk = super().act(observation, **options)
                chunk.log_prob_BLD[0, 0] = math.nan
                return chunk

        refused(tmp_path, Learner(), r"^Vague\.act gave some log-probabilities", Vague())

    def test_readings(self, tmp_path: Path) -> None:
        refused(tmp_path, Learner(), r"^Numbing\.step gave readings", world_model=Numbing())

    def test_readings_of_an_episode_that_the_world_lost_are_no_fault(self) -> None:
        world, tasks = Numbing(), [task("a", 3), task("b", 20)]
        world.lost = ("the simulator crashed", None)
        generator = seeded_generator(5, "lost")
        first, second = imagine(
            SeeingPolicy(SeeingPolicy.Config(proprio=False)), world, tasks, horizon=4, temperature=0.7,
            generator=generator,
        )  # fmt: skip
        assert first.error == "the simulator crashed" and second.error is None

    def test_what_was_not_waited_for_is_looked_at_in_the_end(self) -> None:
        """On an accelerator, numbers are looked at once they are on the host."""
        generator, policy = seeded_generator(5, "end"), SeeingPolicy()
        (whole,) = imagine(policy, CountingWorld(), [task("a", 3)], horizon=4, temperature=0.7, generator=generator)
        assert whole.proprio_TP is not None
        check_finite(policy, [whole])
        check_readings(CountingWorld(), [whole])
        with pytest.raises(ContractError, match=r"SeeingPolicy\.act gave actions that are infinite or NaN"):
            check_finite(policy, [replace(whole, actions_NLA=whole.actions_NLA * math.inf)])
        numb = replace(whole, proprio_TP=whole.proprio_TP * math.nan)
        with pytest.raises(ContractError, match=r"CountingWorld\.step gave readings"):
            check_readings(CountingWorld(), [whole, numb])
        check_readings(CountingWorld(), [replace(numb, error="the simulator crashed")])

    def test_what_the_policy_evaluates(self, tmp_path: Path) -> None:
        said = r"^Blurred\.evaluate gave log-probabilities that are infinite or NaN.*step 1; no step was taken"
        refused(tmp_path, Learner(), said, Blurred())

    def test_a_loss_of_finite_numbers(self, tmp_path: Path) -> None:
        odd = Odd(loss_as=lambda loss: replace(loss, total=loss.total * math.nan))
        refused(tmp_path, odd, r"^Odd\.loss gave a total that is infinite or NaN, from finite inputs")


class Numbing(CountingWorld):
    """Its first episode feels nothing."""

    lost: tuple[str | None, ...] | None = None

    def step(self, state: Any, actions_BLA: Tensor) -> Step:
        shown = super().step(state, actions_BLA)
        assert shown.proprio_BLP is not None
        shown.proprio_BLP[0] = math.nan
        return replace(shown, errors=self.lost)
