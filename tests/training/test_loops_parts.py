"""What the loop hands to its parts, what it keeps of them, and what it says about its own time."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from learner import Learner, loop_config, parts_of, train
from seeing import CountingWorld, SeeingPolicy, UpReward
from torch import nn
from twins import together

from gymnast_core.errors import CheckpointError
from gymnast_core.plugins.events import Steering
from gymnast_core.processes import Processes
from gymnast_core.runs.snapshot import load_snapshot, save_snapshot
from gymnast_core.signals import Terminated, _terminate
from gymnast_core.training import loop as looping
from gymnast_core.training.loop import ReinforcementLoop
from gymnast_core.training.record import RunRecord
from gymnast_core.training.trainer import build_trainer
from gymnast_core.types import Reward


@dataclass
class Curious(Learner):
    """Notes which policy its modules are for, and who takes the steps."""

    asked: list[Any] = field(default_factory=list)
    steps: int = 0

    def extra_modules(self, policy: Any) -> Mapping[str, nn.Module]:
        self.asked.append(policy)
        return {}

    def torch_optimizer(self, parameters: Any) -> torch.optim.Optimizer:
        made = super().torch_optimizer(parameters)
        made.register_step_post_hook(lambda *_: setattr(self, "steps", self.steps + 1))
        return made


def test_an_optimizer_makes_its_modules_for_the_policy_and_steps_as_often_as_the_loop_says(tmp_path: Path) -> None:
    config, learner, policy = loop_config(iterations=2), Curious(), SeeingPolicy()
    loop = train(tmp_path, parts_of(policy, config, learner), config)
    assert learner.asked == [policy]
    # Lightning takes none of its own, and puts no wrapper around it.
    assert learner.steps == loop.updater.updates > 1
    assert type(loop.updater.torch_optimizer) is torch.optim.SGD


@pytest.mark.parametrize("needed", [True, False])
def test_there_is_a_reference_only_where_one_is_needed(needed: bool, tmp_path: Path) -> None:
    config, learner = loop_config(), Learner(needs_reference=needed)
    loop = train(tmp_path, parts_of(SeeingPolicy(), config, learner), config)
    assert (loop.updater.reference is not None) == needed
    assert all((minibatch.reference_log_prob_BSD is not None) == needed for minibatch in learner.seen)


def test_before_there_is_an_optimizer_there_are_no_steps_to_keep() -> None:
    config = loop_config()
    loop = ReinforcementLoop(config, parts_of(SeeingPolicy(), config, Learner()))
    assert loop.updater.state_dict()["torch_optimizer"] is None


def test_a_snapshot_holds_the_policy_once(tmp_path: Path) -> None:
    config = loop_config()
    train(tmp_path, parts_of(SeeingPolicy(), config, Learner()), config)
    snapshot = load_snapshot(tmp_path / "snapshots")
    assert snapshot is not None
    assert set(snapshot.state["components"]) == {"world_model", "reward_model", "optimizer"}


def test_steps_of_another_optimizer_are_refused_with_the_snapshot(tmp_path: Path) -> None:
    config, longer = loop_config(), loop_config(iterations=2)
    train(tmp_path, parts_of(SeeingPolicy(), config, Learner()), config)
    snapshot = load_snapshot(tmp_path / "snapshots")
    assert snapshot is not None
    updater = {**snapshot.state["updater"], "torch_optimizer": {"state": {}, "param_groups": []}}
    state = {**snapshot.state, "updater": updater}
    save_snapshot(tmp_path / "snapshots", 1, state, own=snapshot.processes[0])
    with pytest.raises(CheckpointError, match="step-000000001 does not fit this run"):
        train(tmp_path, parts_of(SeeingPolicy(), longer, Learner()), longer, load_snapshot(tmp_path / "snapshots"))


def test_sigterm_reaches_the_leader_and_nobody_before_it(tmp_path: Path) -> None:
    """Lightning puts a handler of its own in front, which talks to other processes in the midst of anything."""
    handlers: list[Any] = []

    class Ended(CountingWorld):
        def step(self, *arguments: Any) -> Any:
            handlers.append(signal.getsignal(signal.SIGTERM))
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(1)
            raise AssertionError("nobody listened")

    class Measuring(RunRecord):
        def evaluate(self, label: str, step: int) -> dict[str, Any]:
            handlers.append(signal.getsignal(signal.SIGTERM))
            return {}

    config = loop_config(max_draws=1)
    parts = replace(parts_of(SeeingPolicy(), config, Learner()), world_model=Ended())
    loop = ReinforcementLoop(config, parts)
    loop.record = Measuring(config, parts, tmp_path)
    before = signal.getsignal(signal.SIGTERM)
    try:
        with pytest.raises(Terminated):
            build_trainer({"accelerator": "cpu"}).fit(loop, loop.steps)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert handlers == [_terminate, _terminate]


def test_seconds_are_those_that_went_by(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The clock stands still but for a second a judgement and ten an update, and does not begin at 0."""
    clock, found = [1000.0], {}
    monkeypatch.setattr(looping, "time", SimpleNamespace(monotonic=lambda: clock[0]))

    class Slow(Learner):
        def advantages(self, judged: Any) -> Any:
            clock[0] += 10.0
            return super().advantages(judged)

    config = loop_config(max_draws=1)
    parts = parts_of(SeeingPolicy(), config, Slow())
    real = parts.reward_model.score  # type: ignore[union-attr]

    def score(rollouts: Any) -> Any:
        clock[0] += 1.0
        return real(rollouts)

    monkeypatch.setattr(parts.reward_model, "score", score)
    monkeypatch.setattr(looping.RunRecord, "iteration_done", lambda self, loop, numbers: found.update(numbers))
    train(tmp_path, parts, config)
    assert (found["seconds_imagining"], found["seconds_updating"]) == (1.0, 10.0)


def test_numbers_are_those_of_all_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sums are added up, and an iteration takes as long as its slowest process."""
    own = threading.local()

    def clock() -> float:
        # Process 0 is asked every second, process 1 every third: it takes three times as long for everything.
        own.now += own.step
        return own.now

    def priced(self: UpReward, rollouts: Any) -> list[Reward]:
        return [replace(reward, cost_usd=0.25) for reward in score(self, rollouts)]

    score = UpReward.score
    monkeypatch.setattr(UpReward, "score", priced)
    monkeypatch.setattr(looping, "time", SimpleNamespace(monotonic=clock))

    def work(processes: Processes) -> dict[str, float]:
        own.now, own.step = 0.0, 1.0 + 2.0 * processes.rank
        config, learner = loop_config(max_draws=1, imagine_batch_size=4), Learner()
        loop = ReinforcementLoop(config, replace(parts_of(SeeingPolicy(), config, learner), processes=processes))
        found: dict[str, float] = {}
        loop.record = SimpleNamespace(  # type: ignore[assignment]
            listener=lambda iteration: SimpleNamespace(
                imagined=lambda *_: None, judged=lambda *_: None, paid=lambda usd: found.update(paid=usd)
            ),
            steer=lambda step, left_out: Steering(),
            stopped=None,
            iteration_done=lambda loop, numbers: found.update(numbers),
        )
        loop.updater.torch_optimizer = learner.torch_optimizer(loop.updater.parameters)
        loop.training_step(0, 0)
        return found

    first, second = together(2, work)
    assert first == second
    assert first["rollouts"] == 16
    assert first["paid"] == first["cost_usd"] == 4.0
    assert (first["seconds_imagining"], first["seconds_updating"]) == (3.0, 3.0)
