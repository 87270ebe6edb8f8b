"""What a run records while it works, and how a resumed run continues the record."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from gymnast_core.errors import StorageError
from gymnast_report.recorder import Recorder

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


def test_tensorboard_shows_what_was_recorded_before_a_kill(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, "Fitting", total=4, unit="step", done=0)
    for step in (1, 2):
        recorder.log(step, ROWS[step])
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [event.value for event in events.Scalars("loss")] == pytest.approx([1 / 3, 1e-17])
    assert events.Tags()["scalars"] == ["loss", "rollouts", "kl"]
    recorder.close()


def test_curves_that_a_disk_refuses_are_one_error_and_leave_no_thread(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, "Fitting", total=4, unit="step", done=0)
    (tmp_path / "tensorboard").write_text("")
    with pytest.raises(StorageError, match=r"tensorboard/events.* cannot be written"):
        recorder.log(1, ROWS[1])
    recorder.close()


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
