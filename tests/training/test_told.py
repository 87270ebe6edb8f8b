"""What a run tells: the hooks of it, its summary, the folder it works in."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from learner import Learner, loop_config, parts_of, train
from seeing import SeeingPolicy

from gymnast_core.errors import PluginError, StorageError
from gymnast_core.interfaces import Parts
from gymnast_core.plugins import events
from gymnast_core.plugins.hooks import plugin_manager
from gymnast_core.training.loop import ReinforcementLoop
from gymnast_core.training.record import RunRecord


@pytest.fixture
def plug() -> Iterator[Any]:
    """Adds hook plugins for one test."""
    added: list[Any] = []

    def add(**hooks: Any) -> None:
        plugin = SimpleNamespace(**{f"gymnast_{name}": hook for name, hook in hooks.items()})
        plugin_manager().add(plugin, f"plugin-{len(added)}")
        added.append(plugin)

    yield add
    for plugin in added:
        plugin_manager().unregister(plugin)


def run(folder: Path, policy: SeeingPolicy | None = None, **loop: Any) -> ReinforcementLoop:
    config = loop_config(**{"max_draws": 1, **loop})
    return train(folder, parts_of(policy or SeeingPolicy(), config, Learner()), config)


def test_hooks_get_the_rollouts_that_were_made(plug: Any, tmp_path: Path) -> None:
    found: list[tuple[int, Any, Any]] = []
    plug(
        rollouts_imagined=lambda event: found.append((event.step, event.rollouts, None)),
        rewards_scored=lambda event: found.append((event.step, event.rollouts, event.rewards)),
    )
    run(tmp_path, iterations=2)
    assert [step for step, _, _ in found] == [0, 0, 1, 1]
    for (_, imagined, _), (_, judged, rewards) in zip(found[::2], found[1::2], strict=True):
        assert len(imagined) == len(judged) == len(rewards) == 16
        assert all(mine is theirs for mine, theirs in zip(imagined, judged, strict=True))


def test_what_several_hooks_measure_is_put_together(plug: Any, tmp_path: Path) -> None:
    for name in ("first", "second"):

        def measure(event: Any, name: str = name) -> dict[str, float]:
            return {name: float(event.step)}

        plug(evaluate=measure)
    summary = run(tmp_path).record.summary
    assert summary["before"] == {"first": 0.0, "second": 0.0}
    assert summary["after"] == {"first": 1.0, "second": 1.0}
    assert "difference" not in summary


def test_what_was_measured_only_afterwards_is_in_the_summary(plug: Any, tmp_path: Path) -> None:
    plug(evaluate=lambda event: {"score": 2.0} if event.label == "after" else None)
    summary = run(tmp_path).record.summary
    assert summary["after"] == {"score": 2.0} and "before" not in summary


def test_without_anyone_who_measures_a_summary_has_no_measurements(tmp_path: Path) -> None:
    began = time.monotonic()
    summary = run(tmp_path).record.summary
    assert not {"before", "after", "difference"} & summary.keys()
    assert 0 < summary["seconds"] <= time.monotonic() - began


def test_an_error_of_what_measures_ends_the_run(plug: Any, tmp_path: Path) -> None:
    def broken(event: Any) -> Any:
        raise ValueError("the robot is not plugged in")

    plug(evaluate=broken)
    with pytest.raises(ValueError, match="not plugged in"):
        run(tmp_path)


@pytest.mark.parametrize("found", [{"score": object()}, {"score": torch.tensor(1.0)}, {1: 2.0}, [1.0]])
def test_what_is_measured_is_numbers_that_a_file_can_hold(found: Any, plug: Any, tmp_path: Path) -> None:
    plug(evaluate=lambda event: found)
    with pytest.raises(PluginError, match="A hook gymnast_evaluate returned"):
        run(tmp_path)


def test_a_policy_that_cannot_be_written_is_told_with_its_folder(tmp_path: Path) -> None:
    class Full(SeeingPolicy):
        def save(self, directory: Path) -> None:
            raise OSError(28, "No space left on device")

    with pytest.raises(StorageError, match=rf"^{tmp_path}/policy cannot be written: No space left"):
        run(tmp_path, Full())


class TestARecord:
    """One that no loop has used yet."""

    config = replace(loop_config(), output=None)

    def test_it_begins_with_nothing(self) -> None:
        record = RunRecord(self.config, Parts(), Path("run"))
        assert record.event(events.RunStopped).step == 0
        assert record.summary == {}
        assert record.seconds < 1

    def test_the_iterations_behind_a_run_are_its_step(self) -> None:
        assert RunRecord(self.config, Parts(), Path("run"), 7).event(events.RunStopped).step == 7

    def test_who_joins_knows_the_folder(self) -> None:
        class Following(SimpleNamespace):
            def broadcast(self, value: str) -> str:
                assert value == "None"
                return "runs/here"

        parts: Any = SimpleNamespace(processes=Following())
        record = RunRecord(self.config, parts, None)
        record.join()
        event = record.event(events.RunStopped)
        assert (event.folder, event.config.output) == (Path("runs/here"), "runs/here")

    def test_an_evaluation_is_told_its_own_step(self, plug: Any) -> None:
        seen: list[tuple[str, int]] = []
        plug(evaluate=lambda event: seen.append((event.label, event.step)))
        RunRecord(self.config, Parts(), Path("run"), 7).evaluate("now", 3)
        assert seen == [("now", 3)]
