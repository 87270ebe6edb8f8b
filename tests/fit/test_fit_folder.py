"""The run folder of `gymnast fit`: who owns it, what a resume may change, and what hooks are told."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import toy

from gymnast_core.config import load_config
from gymnast_core.errors import ConfigError, DataError, StorageError
from gymnast_core.plugins import events, hooks
from gymnast_core.runs.folder import read_resumes, run_folder
from gymnast_core.runs.snapshot import load_latest_snapshot
from gymnast_core.signals import Terminated
from gymnast_fit.config import FitConfig
from gymnast_pages.state import state_of

Fit = Callable[..., Path]


class Listening:
    """A hook plugin that keeps what it is told."""

    def __init__(self) -> None:
        self.events: list[Any] = []

    def gymnast_run_started(self, event: Any) -> None:
        self.events.append(event)

    def gymnast_metrics(self, event: Any) -> None:
        self.events.append(event)

    def gymnast_run_stopped(self, event: Any) -> None:
        self.events.append(event)

    def gymnast_run_done(self, event: Any) -> None:
        self.events.append(event)


def test_an_error_after_the_last_step_is_the_end_that_its_page_tells(
    fit: Fit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: Any) -> Any:
        raise StorageError("The disk is full of toys.")

    monkeypatch.setattr("gymnast_fit.fit._finish", full)
    with pytest.raises(StorageError, match="full of toys"):
        fit(steps=2, batch_size=4, warmup_steps=0)
    (run,) = [path.parent for path in tmp_path.rglob("config.yaml")]
    state = state_of(run)
    assert (state.name, state.error, state.step) == ("crashed", "The disk is full of toys.", 2)
    assert "full of toys" in (run / "report.html").read_text() and state.resume == f"gymnast fit --resume {run}"


@pytest.fixture
def told() -> Iterator[list[Any]]:
    listening = Listening()
    hooks.plugin_manager().add(listening, "listening")
    yield listening.events
    hooks.plugin_manager().unregister(listening)


def test_two_processes_cannot_resume_one_run(fit: Fit) -> None:
    run = fit(steps=1)
    before = sorted(path.name for path in run.rglob("*"))
    stored = load_config(FitConfig, str(run / "config.yaml"))
    with run_folder(stored, "", run), pytest.raises(ConfigError, match=f"Another process works in {run}"):
        fit(resume=run, steps=2)
    assert sorted({path.name for path in run.rglob("*")} - {"resumed.json"}) == sorted(set(before))
    fit(resume=run, steps=2)


def test_a_run_is_not_begun_over_another(fit: Fit) -> None:
    run = fit(steps=1)
    with pytest.raises(ConfigError, match=f"already holds a run. Continue it with --resume {run}"):
        fit(f"output={run}", steps=1)


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ("reward_model.args={width: 5}", "reward_model.args.width"),
        ("reward_model=toy-drawing", "reward_model.name"),
        ("episodes.args={count: 7}", "episodes.args.count"),
        ("fit.batch_size=4", "fit.batch_size"),
        ("fit.optimizer=muon", "fit.optimizer"),
        ("seed=3", "seed"),
    ],
)
def test_what_a_run_is_cannot_be_changed(fit: Fit, change: str, key: str) -> None:
    run = fit(steps=1)
    config = (run / "config.yaml").read_bytes()
    with pytest.raises(ConfigError, match=f"A resumed run cannot change {key}"):
        fit(change, resume=run, steps=2)
    assert (run / "config.yaml").read_bytes() == config and not (run / "resumed.json").exists()


def test_what_a_resume_changed_is_written_down(fit: Fit) -> None:
    run = fit(steps=1)
    fit(resume=run, steps=2, learning_rate=0.02)
    (resume,) = read_resumes(run)
    assert resume["changes"] == {"fit.steps": [1, 2], "fit.learning_rate": [0.01, 0.02]}
    assert load_config(FitConfig, str(run / "config.yaml")).fit.learning_rate == 0.02


def test_a_dataset_that_has_grown_is_not_gone_on_with(fit: Fit, monkeypatch: pytest.MonkeyPatch) -> None:
    run = fit(steps=1)
    episodes = toy.ToyEpisodes.episodes

    def more(self: Any) -> list[Any]:
        found = list(episodes(self))
        return [*found, found[0]]

    monkeypatch.setattr(toy.ToyEpisodes, "episodes", more)
    with pytest.raises(DataError, match=r"began with (\d+) episodes; its dataset holds (\d+) now") as refused:
        fit(resume=run, steps=2)
    before, now = (int(word) for word in str(refused.value).split() if word.isdigit())
    assert now == before + 1
    monkeypatch.undo()
    assert fit(resume=run, steps=2) == run


def test_hooks_are_told_with_the_fitted_component(fit: Fit, told: list[Any]) -> None:
    run = fit("reward_model=toy-counting", steps=4, log_every=2)
    kinds = [type(event) for event in told]
    assert kinds == [events.RunStarted, events.StepDone, events.StepDone, events.RunStopped, events.RunDone]
    assert [event.step for event in told] == [0, 2, 4, 4, 4]
    assert (told[0].title, told[0].total, told[0].unit) == ("Fitting toy-counting", 4, "step")
    assert all(event.folder == run and event.config.output == str(run) for event in told)
    components = {id(event.parts.reward_model) for event in told}
    assert len(components) == 1 and isinstance(told[0].parts.reward_model, toy.Counting)
    assert told[-1].summary == json.loads((run / "summary.json").read_text())
    assert told[-1].parts.reward_model.calls == ["attach", "close"]


def test_a_resumed_run_says_where_it_goes_on(fit: Fit, told: list[Any]) -> None:
    run = fit(steps=2)
    told.clear()
    fit(resume=run, steps=3)
    assert isinstance(told[0], events.RunStarted) and (told[0].step, told[0].total) == (2, 3)


def test_what_a_component_knows_beside_its_weights_goes_on(fit: Fit) -> None:
    run = fit("reward_model=toy-counting", steps=2)
    fit("reward_model=toy-counting", steps=5, resume=run)
    state = load_latest_snapshot(run / "snapshots")
    assert state is not None and state["component"] == {"losses": 5}


def test_sigterm_after_the_last_step_says_how_to_go_on(
    fit: Fit, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    before = signal.getsignal(signal.SIGTERM)
    with monkeypatch.context() as patched, pytest.raises(Terminated):
        patched.setattr(toy.Toy, "save", lambda self, directory: os.kill(os.getpid(), signal.SIGTERM))
        fit(steps=2)
    assert f"gymnast fit --resume {tmp_path / 'run-1'}" in caplog.text
    assert signal.getsignal(signal.SIGTERM) == before
    assert toy.same(fit(resume=tmp_path / "run-1", steps=2), fit(steps=2))
