"""What hooks may change of a run: leave out tasks, stop it; and that a resumed run still knows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from learner import Learner, loop_config, parts_of, train
from seeing import SeeingPolicy, task

from gymnast_core.errors import ConfigError, PluginError
from gymnast_core.plugins import discovery, hooks
from gymnast_core.plugins.events import RewardsScored, Steering, SteeringWanted
from gymnast_core.runs.snapshot import load_snapshot
from gymnast_core.training.loop import ReinforcementLoop
from gymnast_core.training.tasks import NothingLeft, TaskOrder, family_of

TASKS = [task(f"kind-{index % 2}/{index}", index) for index in range(6)]


@pytest.fixture
def plug(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Adds hook plugins for one test, in place of those that are installed."""
    found = discovery.sources
    hooks.plugin_manager.cache_clear()
    monkeypatch.setattr(discovery, "sources", lambda group: {} if group == "gymnast.hooks" else found(group))

    def add(**named: Any) -> None:
        plugin = SimpleNamespace(**{f"gymnast_{name}": hook for name, hook in named.items()})
        hooks.plugin_manager().add(plugin, f"plugin-{id(plugin)}")

    yield add
    hooks.plugin_manager.cache_clear()


def run(folder: Path, policy: SeeingPolicy | None = None, snapshot: Any = None, **loop: Any) -> ReinforcementLoop:
    config = loop_config(**{"max_draws": 1, "iterations": 4, **loop})
    return train(folder, parts_of(policy or SeeingPolicy(), config, Learner()), config, snapshot)


class TestOrder:
    def test_a_family_that_is_left_out_is_drawn_no_more(self) -> None:
        order, whole = TaskOrder(TASKS, 1), TaskOrder(TASKS, 1)
        expected = [item.id for item in whole.draw(30)]
        before = [item.id for item in order.draw(4)]
        order.leave_out({"family": ["kind-1"]})
        after = [item.id for item in order.draw(9)]
        # The order is that of the whole dataset, with gaps.
        assert before + after == (expected[:4] + [name for name in expected[4:] if name.startswith("kind-0")])[:13]
        assert order.drawn == 13

    def test_an_instruction_is_left_out_by_its_words(self) -> None:
        order = TaskOrder(TASKS, 1)
        order.leave_out({"instruction": ["go to 3", "go to 5"]})
        shown = {item.id for item in order.draw(12)}
        assert shown == {item.id for item in TASKS} - {"kind-1/3", "kind-1/5"}
        assert order.left_out == {"instruction": ["go to 3", "go to 5"]}

    def test_a_resumed_order_goes_on_with_the_same_gaps(self) -> None:
        order, again = TaskOrder(TASKS, 1), TaskOrder(TASKS, 1)
        order.draw(2)
        order.leave_out({"family": ["kind-0"]})
        order.draw(5)
        again.load_state_dict(order.state_dict())
        assert [item.id for item in order.draw(7)] == [item.id for item in again.draw(7)]

    def test_a_snapshot_of_before_goes_on(self) -> None:
        order, again = TaskOrder(TASKS, 1), TaskOrder(TASKS, 1)
        order.draw(8)
        again.load_state_dict({"drawn": 8})
        assert [item.id for item in order.draw(7)] == [item.id for item in again.draw(7)]

    def test_one_task_that_is_left_is_found_wherever_the_pass_begins(self) -> None:
        for start in range(7):
            order = TaskOrder(TASKS, 1)
            if start:
                order.draw(start)
            order.leave_out({"instruction": [f"go to {index}" for index in range(5)]})
            assert {item.id for item in order.draw(3)} == {"kind-1/5"}

    def test_nothing_left_is_an_error_that_names_what_is_out(self) -> None:
        order = TaskOrder(TASKS, 1)
        order.leave_out({"family": ["kind-0"], "instruction": ["go to 1", "go to 3", "go to 5"]})
        with pytest.raises(NothingLeft, match=r"All of the 6 tasks were left out: .*kind-0"):
            order.draw(1)

    def test_a_name_that_no_task_has_is_told_after_a_whole_pass(self, caplog: pytest.LogCaptureFixture) -> None:
        """A comma may have parted it: nothing is left out then, which nobody would notice."""
        order = TaskOrder(TASKS, 1)
        order.leave_out({"instruction": ["go to 3", "pick the cup", "place it"]})
        order.draw(5)
        assert not caplog.messages
        order.draw(7)
        told = sorted(caplog.messages)
        assert [line.split("'")[1] for line in told] == ["pick the cup", "place it"] and "no task has" in told[0]
        # In the midst of a pass, the tasks may have come before.
        order.draw(1)
        order.leave_out({"family": [family_of(task, "family") for task in order.draw(1)]})
        order.draw(6)
        assert len(caplog.messages) == 2

    def test_families(self) -> None:
        assert family_of(TASKS[3], "family") == "kind-1"
        assert family_of(TASKS[3], "instruction") == "go to 3"
        assert family_of(task("lonely", 0), "family") == "lonely"
        with pytest.raises(ConfigError, match="Did you mean 'family'"):
            family_of(TASKS[0], "famly")
        with pytest.raises(ConfigError, match="Known: family, instruction"):
            TaskOrder(TASKS, 1).leave_out({"colour": ["red"]})


class TestRun:
    def test_hooks_are_asked_after_judging_and_before_learning(self, plug: Any, tmp_path: Path) -> None:
        told: list[tuple[str, int, float]] = []

        def note(event: Any) -> None:
            told.append((type(event).__name__, event.step, float(event.parts.policy.bias.detach().abs().sum())))

        plug(rewards_scored=note, steer=note)
        run(tmp_path, iterations=2)
        assert [entry[:2] for entry in told] == [
            ("RewardsScored", 0), ("SteeringWanted", 0), ("RewardsScored", 1), ("SteeringWanted", 1)
        ]  # fmt: skip
        # The policy is still the one that acted.
        assert told[0][2] == told[1][2] == 0.0 and told[2][2] == told[3][2] > 0.0

    def test_a_stopped_run_learns_no_more_and_ends_properly(self, plug: Any, tmp_path: Path) -> None:
        weights: list[Any] = []

        def steer(event: SteeringWanted) -> Steering | None:
            weights.append(event.parts.policy.bias.detach().clone())
            return Steering(stop="Enough.", metrics={"seen": 7.0}) if event.step == 1 else None

        numbers: list[Any] = []
        measured: list[str] = []
        plug(
            steer=steer,
            metrics=lambda event: numbers.append((event.step, dict(event.metrics))),
            evaluate=lambda event: measured.append(event.label),
        )
        loop = run(tmp_path)
        assert loop.record.summary["stopped"] == "Enough." and loop.record.summary["iterations"] == 2
        assert torch.equal(loop.policy.bias, weights[1]) and not torch.equal(weights[0], weights[1])
        assert [step for step, _ in numbers] == [1, 2] and numbers[1][1]["seen"] == 7.0
        assert measured == ["before", "after"]
        assert (tmp_path / "policy").is_dir()

    def test_a_stopped_run_stays_stopped(self, plug: Any, tmp_path: Path) -> None:
        asked: list[int] = []

        def steer(event: SteeringWanted) -> Steering:
            asked.append(event.step)
            return Steering(stop="Enough." if event.step == 1 else None)

        plug(steer=steer)
        first = run(tmp_path / "a")
        snapshot = load_snapshot(tmp_path / "a" / "snapshots")
        assert snapshot is not None
        again = run(tmp_path / "b", snapshot=snapshot)
        assert asked == [0, 1]
        assert again.record.summary["stopped"] == "Enough." and again.record.summary["iterations"] == 2
        assert torch.equal(first.policy.bias, again.policy.bias)

    def test_what_is_left_out_is_neither_learned_from_nor_drawn(self, plug: Any, tmp_path: Path) -> None:
        drawn: list[set[str]] = []

        def steer(event: SteeringWanted) -> Steering | None:
            return Steering({"instruction": ["go to 3", "go to 20"]}) if event.step == 0 else None

        plug(
            rewards_scored=lambda event: drawn.append({rollout.task.instruction for rollout in event.rollouts}),
            steer=steer,
        )
        config = loop_config(max_draws=1, iterations=2)
        learner = Learner()
        loop = train(tmp_path, parts_of(SeeingPolicy(), config, learner), config)
        learned = {rollout.task.instruction for minibatch in learner.seen for rollout in minibatch.rollouts}
        assert drawn[0] == {"go to 3", "go to 8", "go to 20", "go to 31"} and drawn[1] == {"go to 8", "go to 31"}
        assert learned and not learned & {"go to 3", "go to 20"}
        assert loop.record.summary["left_out"] == {"instruction": ["go to 20", "go to 3"]}

    def test_groups_that_wait_are_left_out_too(self, plug: Any, tmp_path: Path) -> None:
        plug(steer=lambda event: Steering({"instruction": ["go to 3", "go to 20", "go to 31"]}))
        config = loop_config(max_draws=1, iterations=1, groups_per_update=1)
        loop = train(tmp_path, parts_of(SeeingPolicy(), config, Learner()), config)
        assert {group.rollouts[0].task.instruction for group in loop.collector.waiting} <= {"go to 8"}

    def test_a_run_with_nothing_left_stops(self, plug: Any, tmp_path: Path) -> None:
        plug(steer=lambda event: Steering({"instruction": [f"go to {place}" for place in (3, 8, 20, 31)]}))
        summary = run(tmp_path).record.summary
        assert summary["iterations"] == 2 and summary["stopped"].startswith("All of the 4 tasks were left out")

    def test_a_resumed_run_leaves_out_the_same(self, plug: Any, tmp_path: Path) -> None:
        def steer(event: SteeringWanted) -> Steering | None:
            return Steering({"instruction": ["go to 8"]}) if event.step == 1 else None

        shown: list[Any] = []

        def note(event: RewardsScored) -> None:
            shown.append((event.step, [rollout.task.id for rollout in event.rollouts]))

        plug(steer=steer, rewards_scored=note)
        whole = run(tmp_path / "whole")
        expected = {step: ids for step, ids in shown}
        run(tmp_path / "part", iterations=2)
        shown.clear()
        snapshot = load_snapshot(tmp_path / "part" / "snapshots")
        resumed = run(tmp_path / "rest", snapshot=snapshot)
        assert [step for step, _ in shown] == [2, 3] and all(expected[step] == ids for step, ids in shown)
        assert torch.equal(whole.policy.bias, resumed.policy.bias)

    def test_several_hooks_add_up(self) -> None:
        joined = Steering.joined(
            [
                Steering({"family": ["a"]}, metrics={"x": 1.0}),
                Steering({"family": ["b"], "instruction": ["c"]}, "One."),
                Steering(stop="Two.", metrics={"y": 2.0}),
            ]
        )
        assert joined == Steering({"family": {"a", "b"}, "instruction": {"c"}}, "One. Two.", {"x": 1.0, "y": 2.0})
        assert Steering.joined([]) == Steering()

    @pytest.mark.parametrize("answer", ["stop", {"stop": "now"}])
    def test_another_answer_is_refused(self, plug: Any, tmp_path: Path, answer: Any) -> None:
        plug(steer=lambda event: answer)
        with pytest.raises(PluginError, match=r"returned a (str|dict).*returns an events\.Steering"):
            run(tmp_path)

    def test_an_error_ends_the_run(self, plug: Any, tmp_path: Path) -> None:
        def steer(event: SteeringWanted) -> None:
            raise ZeroDivisionError("a guard that fails must be heard")

        plug(steer=steer)
        with pytest.raises(ZeroDivisionError):
            run(tmp_path)
