"""Which tasks come, which groups are kept, which wait, and who makes them."""

from __future__ import annotations

import pickle
import re
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from learner import Learner, loop_config, parts_of, train
from seeing import SeeingPolicy, UpReward, task

from gymnast_core.errors import ConfigError
from gymnast_core.processes import Processes
from gymnast_core.rollouts.deal import check_deal, deals
from gymnast_core.runs.snapshot import load_snapshot
from gymnast_core.training.collect import Collector
from gymnast_core.training.loop import ReinforcementLoop
from gymnast_core.training.tasks import TaskOrder

TASKS = [task(f"task-{index}", index) for index in range(5)]


def test_every_pass_shows_every_task_in_another_order() -> None:
    order = TaskOrder(TASKS, seed=1)
    passes = [[item.id for item in order.draw(5)] for _ in range(4)]
    for shown in passes:
        assert sorted(shown) == sorted(item.id for item in TASKS)
    assert len({tuple(shown) for shown in passes}) > 1


def test_the_order_goes_on_where_it_was() -> None:
    order, again = TaskOrder(TASKS, seed=1), TaskOrder(TASKS, seed=1)
    order.draw(7)
    again.load_state_dict(order.state_dict())
    assert again.drawn == 7
    assert [item.id for item in again.draw(9)] == [item.id for item in order.draw(9)]
    assert [item.id for item in TaskOrder(TASKS, 2).draw(5)] != [item.id for item in TaskOrder(TASKS, 1).draw(5)]


@given(count=st.integers(1, 12), size=st.integers(1, 9), batch=st.integers(1, 40), processes=st.integers(1, 5))
def test_dealing_splits_a_draw_into_whole_groups(count: int, size: int, batch: int, processes: int) -> None:
    tasks = [TASKS[index % 5] for index in range(count)]
    dealt = deals(tasks, 100, size, batch)
    episodes = [(item.first, label) for deal in dealt for item in deal.batches for label in item.labels]
    assert [label for _, label in episodes] == [100 + index for index in range(count) for _ in range(size)]
    for deal in dealt:
        assert all(0 < len(item.tasks) == len(item.labels) <= max(batch, 1) for item in deal.batches)
    owners = [
        {label for deal in dealt[rank::processes] for b in deal.batches for label in b.labels}
        for rank in range(processes)
    ]
    assert sum(map(len, owners)) == count
    firsts = [item.first for deal in dealt for item in deal.batches]
    assert len(set(firsts)) == len(firsts)


@given(groups=st.integers(1, 64), size=st.integers(1, 16), batch=st.integers(1, 300), processes=st.integers(1, 80))
def test_the_advice_of_a_refused_deal_works(groups: int, size: int, batch: int, processes: int) -> None:
    try:
        check_deal(groups, size, batch, processes)
    except ConfigError as error:
        advice = str(error).partition("idle: ")[2]
        said = re.search(r"set loop.imagine_batch_size to (\d+) or less", advice)
        batch = int(said[1]) if said else batch
        more = re.search(r"raise loop.tasks_per_iteration to (\d+), or use (\d+) processes", advice)
        assert said or more
        if more is None:
            check_deal(groups, size, batch, processes)
            return
        assert groups < processes
        check_deal(int(more[1]), size, batch, processes)
        check_deal(groups, size, batch, int(more[2]))
    else:
        assert len(deals([TASKS[0]] * groups, 0, size, batch)) >= processes


def test_a_rollout_that_is_sent_takes_nobody_along(tmp_path: Path) -> None:
    weights: list[float] = []

    class Weighing(UpReward):
        def score(self, rollouts):
            for rollout in rollouts:
                own = sum(value.nbytes for value in vars(rollout).values() if isinstance(value, torch.Tensor))
                sent = len(pickle.dumps({key: value for key, value in vars(rollout).items() if key != "task"}))
                stored = sum(
                    v.untyped_storage().nbytes() for v in vars(rollout).values() if isinstance(v, torch.Tensor)
                )
                weights.append(stored / own)
                assert sent < own + 5000
            return super().score(rollouts)

    config = loop_config()
    train(tmp_path, parts_of(SeeingPolicy(), config, Learner(), Weighing()), config)
    assert weights and max(weights) == 1.0


class TestWaiting:
    """Groups that an iteration has no room for."""

    config = loop_config(iterations=1, groups_per_update=1, tasks_per_iteration=4)

    def test_they_wait_in_order_and_are_restored(self, tmp_path: Path) -> None:
        done = train(tmp_path, parts_of(SeeingPolicy(), self.config, Learner()), self.config)
        waiting = done.collector.waiting
        assert len(waiting) >= 2
        assert [group.label for group in waiting] == sorted(group.label for group in waiting)
        snapshot = load_snapshot(tmp_path / "snapshots")
        assert snapshot is not None
        loop = ReinforcementLoop(self.config, parts_of(SeeingPolicy(), self.config, Learner()))
        loop.record = done.record
        loop.restore(snapshot)
        loop._restore_the_rest()
        assert [group.label for group in loop.collector.waiting] == [group.label for group in waiting]
        for restored, original in zip(loop.collector.waiting, waiting, strict=True):
            assert restored.rewards == original.rewards
            for mine, theirs in zip(restored.rollouts, original.rollouts, strict=True):
                assert torch.equal(mine.frames_TVHWC, theirs.frames_TVHWC)
                assert torch.equal(mine.log_prob_NLD, theirs.log_prob_NLD)
                assert (mine.task.id, mine.cameras, mine.version) == (theirs.task.id, theirs.cameras, theirs.version)
                assert mine.proprio_TP is not None and torch.equal(mine.proprio_TP, theirs.proprio_TP)

    def test_a_restored_run_learns_from_what_waited(self, tmp_path: Path) -> None:
        longer = loop_config(iterations=3, groups_per_update=1, tasks_per_iteration=4)
        whole, part, again = Learner(), Learner(), Learner()
        train(tmp_path / "whole", parts_of(SeeingPolicy(), longer, whole), longer)
        train(tmp_path / "part", parts_of(SeeingPolicy(), self.config, part), self.config)
        snapshot = load_snapshot(tmp_path / "part" / "snapshots")
        judge = UpReward()
        resumed = train(tmp_path / "part", parts_of(SeeingPolicy(), longer, again, judge), longer, snapshot)
        expected = [rollout.group for minibatch in whole.seen for rollout in minibatch.rollouts]
        found = [rollout.group for minibatch in part.seen + again.seen for rollout in minibatch.rollouts]
        assert found == expected
        assert resumed.iteration == 3

    def test_any_number_of_processes_shares_out_what_waited(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        done = train(tmp_path, parts_of(SeeingPolicy(), self.config, Learner()), self.config)
        state = done.collector.state_dict()
        labels = [group.label for group in done.collector.waiting]
        found = []
        for rank in (0, 1):
            monkeypatch.setattr(Processes, "rank", rank)
            monkeypatch.setattr(Processes, "count", 2)
            collector = Collector.__new__(Collector)
            collector._processes = Processes()
            collector.load_state_dict([{"waiting": state["waiting"][1:]}, {"waiting": state["waiting"][:1]}])
            found.append([group.label for group in collector.waiting])
        assert found == [labels[0::2], labels[1::2]]
