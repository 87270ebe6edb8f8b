"""Batches that a CPU's cores imagine side by side: the same rollouts, in order, ended soon when nobody waits."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from threading import Barrier, Event
from typing import Any

import pytest
import torch
from learner import loop_config
from seeing import CountingWorld, SeeingPolicy, UpReward, task

from gymnast_core.interfaces import Parts
from gymnast_core.rollouts.deal import deals
from gymnast_core.rollouts.imagine import imagine
from gymnast_core.rollouts.side_by_side import Stopped, side_by_side
from gymnast_core.seeds import seeded_generator
from gymnast_core.training.engine import LocalEngine, Wanted
from gymnast_core.types import Rollout

TASKS = [task(f"task-{place}", place) for place in (3, 8, 20, 31)]


@pytest.fixture(autouse=True)
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_results_come_in_order_however_long_each_takes() -> None:
    def work(number: int, stop: Event) -> int:
        time.sleep(0.02 * (5 - number))
        return number * number

    assert list(side_by_side(work, range(5), 2)) == [0, 1, 4, 9, 16]


def test_two_are_at_work_at_once() -> None:
    both = Barrier(2)
    assert list(side_by_side(lambda item, stop: both.wait(10) >= 0, "abcd", 2)) == [True] * 4


def test_the_cores_are_shared_out_and_nobody_else_is_affected() -> None:
    elsewhere: list[int] = []
    judge = threading.Thread(target=lambda: elsewhere.append(torch.get_num_threads()))

    def inside(item: int, stop: Event) -> int:
        torch.rand(300, 300) @ torch.rand(300, 300)
        return torch.get_num_threads()

    torch.set_num_threads(4)
    counts = []
    for count in side_by_side(inside, range(3), 2):
        counts.append(count)
        if len(counts) == 1:
            assert torch.get_num_threads() == 4
            judge.start()
            judge.join()
    assert counts == [2, 2, 2]
    assert elsewhere == [4]
    assert torch.get_num_threads() == 4


@pytest.mark.parametrize("threads", [1, 2])
def test_an_error_is_raised_where_it_is_waited_for(threads: int) -> None:
    def work(number: int, stop: Event) -> int:
        if number == 1:
            raise ValueError("the second one")
        return number

    found = []
    with pytest.raises(ValueError, match="the second one"):
        for number in side_by_side(work, range(4), threads):
            found.append(number)
    assert found == [0]


def test_whoever_closes_it_waits_for_no_more_than_a_step() -> None:
    ended: list[int] = []

    def work(number: int, stop: Event) -> int:
        if number == 0:
            return number
        assert stop.wait(30), "nobody stopped it"
        ended.append(number)
        raise Stopped

    began = time.monotonic()
    with closing(side_by_side(work, range(20), 2)) as made:
        assert next(made) == 0
    assert time.monotonic() - began < 20
    assert 1 <= len(ended) <= 2, "what had not begun does not begin"
    assert not [one for one in threading.enumerate() if one.name.startswith("side-by-side")]


def test_it_ends_however_the_threads_are_scheduled() -> None:
    """Threads that are switched all the time: one that begins late must not miss the end."""

    def work(number: int, stop: Event) -> int:
        if number:
            stop.wait(30)
            raise Stopped
        return number

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        for _ in range(100):
            with closing(side_by_side(work, range(9), 2)) as made:
                assert next(made) == 0
    finally:
        sys.setswitchinterval(before)


@dataclass
class Meeting:
    """Where threads are noted; each waits a moment for another one."""

    names: set[str] = field(default_factory=set)

    def join(self) -> None:
        self.names.add(threading.current_thread().name)
        time.sleep(0.05)


class Slow(CountingWorld):
    """May be used by several threads, and notes them."""

    concurrent = True

    def __init__(self, meeting: Meeting) -> None:
        super().__init__()
        self.meeting = meeting

    def reset(self, tasks: Any, *, generator: torch.Generator | None = None) -> Any:
        self.meeting.join()
        return super().reset(tasks, generator=generator)


class Seeing(SeeingPolicy):
    concurrent = True


class Alone(SeeingPolicy):
    """Says nothing about threads."""


def made_by(policy: SeeingPolicy, meeting: Meeting, batches: int | None = None) -> list[Rollout]:
    loop = loop_config(imagine_batch_size=2).loop
    engine = LocalEngine(LocalEngine.Config(batches))
    engine.attach(Parts(policy, Slow(meeting), UpReward()))
    dealt = tuple(deals(TASKS, 0, 2, loop.imagine_batch_size))
    making = engine.start(Wanted(dealt, loop, 3, 0, 0, 0))
    rollouts = making.rollouts()
    assert len(making.rewards()) == len(rollouts) == 8
    return rollouts


def test_a_draw_is_the_same_side_by_side_as_one_after_the_other() -> None:
    meeting, alone = Meeting(), Meeting()
    beside, after = made_by(Seeing(), meeting), made_by(Alone(), alone)
    assert alone.names == {threading.current_thread().name}
    assert all(name.startswith("side-by-side") for name in meeting.names)
    assert len(meeting.names) == 2
    for one, other in zip(beside, after, strict=True):
        assert one.task.id == other.task.id
        assert one.group == other.group
        assert torch.equal(one.actions_NLA, other.actions_NLA)
        assert torch.equal(one.frames_TVHWC, other.frames_TVHWC)


def test_one_thread_of_pytorch_is_one_batch_at_a_time() -> None:
    torch.set_num_threads(1)
    meeting = Meeting()
    made_by(Seeing(), meeting)
    assert meeting.names == {threading.current_thread().name}


@pytest.mark.parametrize(("batches", "threads"), [(1, 1), (2, 2), (9, 2)])
def test_a_config_may_ask_for_fewer_batches_at_once(batches: int, threads: int) -> None:
    meeting = Meeting()
    made_by(Seeing(), meeting, batches)
    assert len(meeting.names) == threads


def test_imagining_ends_within_a_decision_of_being_told() -> None:
    stop = Event()

    class Once(Seeing):
        def act(self, *args: Any, **options: Any) -> Any:
            assert not stop.is_set(), "it went on"
            stop.set()
            return super().act(*args, **options)

    policy = Once()
    with pytest.raises(Stopped):
        imagine(
            policy, Slow(Meeting()), TASKS[:1], horizon=4 * policy.chunk_length, temperature=1.0,
            generator=seeded_generator(0, "test"), stop=stop,
        )  # fmt: skip
