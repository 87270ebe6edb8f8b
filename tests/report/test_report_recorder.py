"""What a run records while it works, and how a resumed run continues the record."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import pytest

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
