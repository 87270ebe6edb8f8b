"""What a run records while it works, and how a resumed run continues the record."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from gymnast_report.progress import Progress
from gymnast_report.recorder import Recorder, versions

ROWS = {
    1: {"loss": 1 / 3, "rollouts": 7.0},
    2: {"loss": 1e-17, "rollouts": 8, "kl": float("nan")},
    3: {"loss": 123456789.123456789, "extra": 2.5},
    4: {"loss": -0.0, "rollouts": 9.0},
}


def record(path: Path, steps: list[int], done: int = 0) -> None:
    recorder = Recorder(path, "Fitting", total=4, unit="step", done=done)
    for step in steps:
        recorder.log(step, ROWS[step])
    recorder.close()


def test_the_record_of_a_resumed_run_is_that_of_a_whole_one(tmp_path: Path) -> None:
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    record(whole, [1, 2, 3, 4])
    record(resumed, [1, 2, 3])
    # The snapshot was that of step 2: row 3 is made again.
    record(resumed, [3, 4], done=2)
    assert (resumed / "metrics.csv").read_bytes() == (whole / "metrics.csv").read_bytes()
    with (resumed / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in rows] == ["1", "2", "3", "4"]
    for step, row in enumerate(rows, start=1):
        for key, value in ROWS[step].items():
            assert float(row[key]) == value or value != value
        assert all(row[key] == "" for key in row.keys() - ROWS[step].keys() - {"step"})


def test_a_run_that_died_before_its_first_snapshot_starts_over(tmp_path: Path) -> None:
    record(tmp_path, [1, 2])
    record(tmp_path, [1])
    assert len((tmp_path / "metrics.csv").read_text().splitlines()) == 2


def test_tensorboard_shows_every_step_once(tmp_path: Path) -> None:
    record(tmp_path, [1, 2, 3])
    record(tmp_path, [3, 4], done=2)
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [event.step for event in events.Scalars("loss")] == [1, 2, 3, 4]


def test_versions_say_what_ran_and_nothing_of_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_API_KEY", "sk-do-not-tell")
    monkeypatch.setattr(sys, "argv", ["/home/somebody/bin/gymnast", "fit", "fit.steps=3"])
    record(tmp_path, [1])
    text = (tmp_path / "versions.json").read_text()
    assert "sk-do-not-tell" not in text and "SOME_API_KEY" not in text and "somebody" not in text
    found = json.loads(text)
    assert found["command"] == ["gymnast", "fit", "fit.steps=3"]
    assert found["packages"]["torch"].startswith(sys.modules["torch"].__version__.split("+")[0])
    # What began the run stays on record.
    monkeypatch.setattr(sys, "argv", ["gymnast", "fit", "--resume", "run"])
    record(tmp_path, [2], done=1)
    assert json.loads((tmp_path / "versions.json").read_text()) == found


def test_versions_without_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert versions()["git_revision"] is None and versions()["git_dirty"] is None
    monkeypatch.setenv("PATH", "")
    assert versions()["git_revision"] is None


class TestProgressInALogFile:
    @pytest.fixture
    def clock(self, monkeypatch: pytest.MonkeyPatch) -> list[float]:
        now = [100.0]
        monkeypatch.setattr("gymnast_report.progress.time.monotonic", lambda: now[0])
        return now

    def test_a_line_now_and_then(self, clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
        with Progress("Fitting", total=400) as progress:
            for step in range(1, 401):
                clock[0] += 0.25
                progress.update(step, {"loss": 0.12345, "unscored": 2})
        lines = capsys.readouterr().err.splitlines()
        assert lines[0] == "Fitting 40/400  4.00 steps/s  left 1:30  loss 0.123  unscored 2"
        assert len(lines) == 10
        assert lines[-1].startswith("Fitting 400/400  4.00 steps/s  left 0:00")

    def test_a_resumed_run_counts_only_its_own_steps(
        self, clock: list[float], capsys: pytest.CaptureFixture[str]
    ) -> None:
        with Progress("Training", total=100, unit="iteration", start=90) as progress:
            clock[0] += 10
            progress.update(90, {})
            clock[0] += 30
            progress.update(91, {})
        first, second = capsys.readouterr().err.splitlines()
        assert first == "Training 90/100  left ?"
        assert second == "Training 91/100  40.0 s/iteration  left 6:00"

    def test_hours(self, clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
        with Progress("Training", total=101, unit="iteration") as progress:
            clock[0] += 100
            progress.update(1, {})
        assert capsys.readouterr().err == "Training 1/101  100.0 s/iteration  left 2:46:40\n"


def test_a_terminal_gets_a_live_bar(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    with Progress("Fitting", total=10, start=4) as progress:
        progress.update(7, {"loss": 0.5})
    shown = capsys.readouterr().err
    assert "Fitting" in shown and "7/10" in shown and "loss 0.5" in shown
