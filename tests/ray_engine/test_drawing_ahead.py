"""An engine that works ahead: the next iteration's first draw begins before the update, and is part of no snapshot."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray_parts

sys.path.insert(0, str(Path(__file__).parents[1] / "training"))

import bandit
from learner import Learner

from gymnast_core.config import LoopConfig
from gymnast_core.interfaces import Parts
from gymnast_core.processes import Processes
from gymnast_core.training.collect import Collector
from gymnast_core.training.engine import LocalEngine, Making, Wanted
from gymnast_core.training.tally import Tally
from gymnast_core.training.tasks import TaskOrder

TASKS = [bandit.line_task(position) for position in (6, 7, 8, 9)]


class Ahead(LocalEngine):
    """Notes what is wanted; imagines it when it is asked for."""

    staleness = 1

    def __init__(self) -> None:
        super().__init__()
        self.wanted: list[Wanted] = []

    def start(self, wanted: Wanted) -> Making:
        self.wanted.append(wanted)
        return super().start(wanted)

    @property
    def draws(self) -> list[tuple[int, int, int]]:
        return [(wanted.iteration, wanted.draw, wanted.version) for wanted in self.wanted]


@dataclass
class Keeping(Learner):
    """Keeps every group."""

    def keep(self, judged: Any) -> Any:
        return judged.valid_GK.all(1)


class Nobody:
    def imagined(self, rollouts: Any) -> None: ...

    def judged(self, rollouts: Any, rewards: Any) -> None: ...

    def paid(self, usd: float | None) -> None: ...


class Run:
    """A collector over an engine, and the order of its tasks."""

    def __init__(self, engine: LocalEngine, **loop: Any) -> None:
        settings = {"tasks_per_iteration": 3, "horizon": 4, "max_draws": 1, **loop}
        parts = Parts(
            bandit.LinePolicy(bandit.LinePolicy.Config(2)), ray_parts.World(ray_parts.World.Config()),
            ray_parts.Judge(ray_parts.Judge.Config()), Keeping(),
        )  # fmt: skip
        engine.attach(parts)
        self.order = TaskOrder(TASKS, 5)
        self.collector = Collector(
            parts.policy, parts.world_model, parts.reward_model, parts.optimizer, self.order,  # type: ignore[arg-type]
            LoopConfig(**settings), 5, Processes(), engine,
        )  # fmt: skip

    def iterate(self, iteration: int, version: int) -> list[tuple[int, str]]:
        """Label and task of each group; the next draw begins before the update."""
        groups = self.collector.collect(iteration, version, Tally(), Nobody())
        self.collector.draw_ahead(iteration + 1, version)
        return [(group.label, group.rollouts[0].task.id) for group in groups]


def test_the_same_groups_are_made_one_version_behind() -> None:
    engine = Ahead()
    ahead, local = Run(engine), Run(LocalEngine())
    assert [ahead.iterate(number, 10 * number) for number in range(3)] == [
        local.iterate(number, 10 * number) for number in range(3)
    ]
    assert engine.draws == [(0, 0, 0), (1, 0, 0), (2, 0, 10), (3, 0, 20)]


def test_a_snapshot_knows_nothing_of_what_is_under_way() -> None:
    first = Run(Ahead())
    first.iterate(0, 0)
    state = first.collector.order_state()
    assert state["drawn"] == 3 and first.order.state_dict()["drawn"] == 6
    expected = first.iterate(1, 10)
    resumed = Run(engine := Ahead())
    resumed.order.load_state_dict(state)
    assert resumed.iterate(1, 10) == expected
    assert engine.draws[0] == (1, 0, 10), "drawn again, with the weights of now"


def test_what_was_left_out_meanwhile_stays_so() -> None:
    run = Run(Ahead())
    run.iterate(0, 0)
    run.order.leave_out({"instruction": ["go left"]})
    assert run.collector.order_state()["left_out"] == {"instruction": ["go left"]}


def test_nothing_is_begun_that_nobody_would_learn_from() -> None:
    run = Run(engine := Ahead(), tasks_per_iteration=4, groups_per_update=2)
    run.iterate(0, 0)
    # Two of the four groups wait, which is what the next iteration wants.
    assert engine.draws == [(0, 0, 0)]
    run.iterate(1, 10)
    assert engine.draws == [(0, 0, 0), (2, 0, 10)]


def test_later_draws_of_an_iteration_are_made_with_the_weights_of_then() -> None:
    run = Run(engine := Ahead(), tasks_per_iteration=2, groups_per_update=4, max_draws=2)
    run.iterate(0, 0)
    run.iterate(1, 10)
    assert engine.draws == [(0, 0, 0), (0, 1, 0), (1, 0, 0), (1, 1, 10), (2, 0, 10)]


def test_where_all_tasks_are_left_out_the_iteration_says_so() -> None:
    run = Run(engine := Ahead())
    run.order.leave_out({"instruction": ["go right"]})
    run.collector.draw_ahead(1, 0)
    assert engine.draws == []


def test_an_engine_that_does_not_work_ahead_is_not_asked_to() -> None:
    engine = Ahead()
    engine.staleness = 0
    Run(engine).iterate(0, 0)
    assert engine.draws == [(0, 0, 0)]
