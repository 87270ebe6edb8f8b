"""Several processes make the updates of one: groups are dealt whole, numbers travel, sums are added up."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from learner import Learner, loop_config
from seeing import CountingWorld, SeeingPolicy, UpReward, task
from test_update import Imitating, SuccessesOnly, TokenMean, TrajectoryMean, demonstrations
from torch import Tensor, nn
from twins import together

from gymnast_core.learning import Advantages, Judged, Minibatch
from gymnast_core.processes import Processes
from gymnast_core.training.collect import Collector
from gymnast_core.training.judge import RewardsFailing
from gymnast_core.training.tally import Tally
from gymnast_core.training.tasks import TaskOrder
from gymnast_core.training.update import Updater
from gymnast_core.types import LossSum, Metric, Reward


class Silent:
    """Nobody is told."""

    def __init__(self) -> None:
        self.groups: list[int] = []

    def imagined(self, rollouts: Any) -> None:
        self.groups += sorted({rollout.group for rollout in rollouts})

    def paid(self, usd: float | None) -> None: ...

    def judged(self, rollouts: Any, rewards: Any) -> None: ...


@dataclass
class Done:
    """What one process did."""

    weights: list[Tensor]
    groups: list[list[int]]
    made: list[int]
    waiting: list[int]
    numbers: list[dict[str, float]]
    updates: int


def iterate(processes: Processes, learner: Learner, *, judge: Any = None, iterations: int = 2, **loop: Any) -> Done:
    """Iterations of the loop's parts, without a trainer."""
    config = loop_config(**{"tasks_per_iteration": 6, "imagine_batch_size": 4, "groups_per_update": 3, **loop})
    torch.manual_seed(0)
    policy = Imitating()
    order = TaskOrder([task(f"task-{place}", place) for place in (3, 8, 20, 31)], config.seed)
    collector = Collector(
        policy, CountingWorld(), judge or UpReward(), learner, order, config.loop, config.seed, processes
    )
    updater = Updater(
        policy,
        {},
        learner,
        demonstrations(),
        seed=config.seed,
        micro_batch_size=config.loop.micro_batch_size,
        precision="32-true",
        processes=processes,
    )
    updater.torch_optimizer = learner.torch_optimizer(updater.parameters)
    done = Done([], [], [], [], [], 0)
    for iteration in range(iterations):
        tally, listener = Tally(), Silent()
        groups = collector.collect(iteration, updater.updates, tally, listener)
        done.made += listener.groups
        done.groups.append([group.label for group in groups])
        if any(processes.gather(len(groups))):
            updater.update(groups, iteration, tally)
        done.numbers.append(tally.numbers(processes))
    done.weights = [parameter.detach().clone() for parameter in policy.parameters()]
    done.waiting, done.updates = [group.label for group in collector.waiting], updater.updates
    return done


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("kind", [TokenMean, TrajectoryMean, SuccessesOnly])
@pytest.mark.parametrize("micro", [None, 2])
def test_the_update_is_that_of_one_process(kind: type[Learner], micro: int | None, count: int) -> None:
    def work(processes: Processes) -> Done:
        learner = kind(minibatch_size=7, epochs=2, demonstrations_per_rollout=0.5)
        return iterate(processes, learner, micro_batch_size=micro)

    (alone,) = together(1, work)
    several = together(count, work)
    assert alone.updates > 2
    for mine in several:
        assert mine.updates == alone.updates
        for found, expected in zip(mine.weights, alone.weights, strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-7)
    for step, expected_numbers in enumerate(alone.numbers):
        gathered = several[0].numbers[step]
        assert gathered.keys() == expected_numbers.keys()
        for name, value in expected_numbers.items():
            assert gathered[name] == pytest.approx(value, rel=1e-4, abs=1e-6), name
        assert all(other.numbers[step] == gathered for other in several)


def test_groups_are_dealt_whole_and_learned_from_where_they_were_made() -> None:
    (alone,) = together(1, lambda processes: iterate(processes, Learner(), groups_per_update=2, iterations=2))
    first, second = together(2, lambda processes: iterate(processes, Learner(), groups_per_update=2, iterations=2))
    assert sorted(first.made + second.made) == alone.made
    assert not set(first.made) & set(second.made)
    for step, expected in enumerate(alone.groups):
        assert sorted(first.groups[step] + second.groups[step]) == expected
        assert set(first.groups[step]) <= set(first.made) and set(second.groups[step]) <= set(second.made)
    assert sorted(first.waiting + second.waiting) == alone.waiting
    assert first.waiting or second.waiting


def test_a_process_without_a_group_waits_for_the_others() -> None:
    settings: dict[str, Any] = {"tasks_per_iteration": 1, "groups_per_update": 1, "max_draws": 8, "iterations": 1}
    (alone,) = together(1, lambda processes: iterate(processes, Learner(), **settings))
    first, second = together(2, lambda processes: iterate(processes, Learner(), **settings))
    assert first.groups == alone.groups and second.groups == [[]]
    for found, expected in zip(second.weights, alone.weights, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-7)


def test_a_judge_that_fails_anywhere_stops_everyone() -> None:
    class Failing(UpReward):
        def score(self, rollouts: Any) -> list[Reward]:
            return [Reward(None, error=f"no idea of group {rollouts[0].group}")] * len(rollouts)

    stopped: list[str] = []

    def work(processes: Processes) -> None:
        # The second process alone fails: half of the rollouts, more than the limit.
        judge = Failing() if processes.rank == 1 else UpReward()
        try:
            iterate(processes, Learner(), judge=judge, max_error_rate=0.4)
        except RewardsFailing as error:
            stopped.append(str(error))

    together(2, work)
    assert len(stopped) == 2
    assert all("12 of 24 rollouts" in message and "no idea of group 1" in message for message in stopped)


class Critical(Learner):
    """Whitens over everything that all processes have, and gives each row's value to the loss."""

    def __init__(self, processes: Processes) -> None:
        super().__init__(minibatch_size=5)
        self._processes = processes
        self.checked = 0

    def extra_modules(self, policy: Any) -> dict[str, nn.Module]:
        return {}

    def advantages(self, judged: Judged) -> Advantages:
        values_B = judged.values_GK.flatten()
        sums = self._processes.sum(torch.tensor([float(len(values_B)), float(values_B.sum())]))
        mean = sums[1] / sums[0]
        spread_BS = (values_B - mean)[:, None].expand(-1, judged.mask_BS.shape[1])
        ends = [float(rollout.frames_TVHWC[-1, 0, 0, 0, 2]) for rollout in judged.rollouts]
        return Advantages(spread_BS, {"ends": torch.tensor(ends)})

    def loss(self, minibatch: Minibatch) -> LossSum:
        ends = [float(rollout.frames_TVHWC[-1, 0, 0, 0, 2]) for rollout in minibatch.rollouts]
        assert minibatch.targets["ends"].tolist() == ends
        self.checked += len(ends)
        found = super().loss(minibatch)
        return LossSum(found.total, found.weight, {"seen": Metric(float(len(ends)), combine="sum")})


def test_targets_come_with_their_rows_and_optimizers_may_talk() -> None:
    (alone,) = together(1, lambda processes: iterate(processes, Critical(processes)))
    several = together(2, lambda processes: iterate(processes, Critical(processes)))
    for mine in several:
        for found, expected in zip(mine.weights, alone.weights, strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-7)
        assert [numbers["seen"] for numbers in mine.numbers] == [numbers["seen"] for numbers in alone.numbers]


def test_alone_a_process_leads_and_hears_itself() -> None:
    processes = Processes()
    assert (processes.rank, processes.count, processes.leads) == (0, 1, True)
    assert processes.gather("a") == ["a"]
    assert processes.broadcast("b") == "b"
    values = torch.arange(3)
    assert torch.equal(processes.sum(values), values)
    parameter = nn.Parameter(torch.zeros(2))
    parameter.grad = torch.ones(2)
    processes.sum_gradients([parameter])
    processes.wait()
    assert parameter.grad.tolist() == [1.0, 1.0]
    assert (processes.bytes_told, processes.gradient_bytes) == (0, 0)


def test_the_seeing_policy_is_the_same_in_every_thread() -> None:
    """What the comparisons above rest on."""
    first, second = together(2, lambda processes: [p.detach() for p in SeeingPolicy().parameters()])
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


class Careful(Learner):
    def should_stop(self, metrics: Any) -> bool:
        return metrics["ratio_max"] > 1.0001


def test_a_stop_is_counted_once_however_many_processes_there_are() -> None:
    (alone,) = together(1, lambda processes: iterate(processes, Careful(minibatch_size=4, rate=3.0)))
    several = together(2, lambda processes: iterate(processes, Careful(minibatch_size=4, rate=3.0)))
    assert any(0 < numbers["stopped_early"] < 1 for numbers in alone.numbers)
    for step, numbers in enumerate(alone.numbers):
        assert [mine.numbers[step]["stopped_early"] for mine in several] == [numbers["stopped_early"]] * 2
