"""Snapshots that are written beside the work."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from gymnast_core.errors import StorageError
from gymnast_core.processes import Alone
from gymnast_core.runs import snapshot as files
from gymnast_core.runs.snapshot import load_latest_snapshot
from gymnast_core.runs.writing import SnapshotWriter


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """What is written waits until it is set."""
    opened, original = threading.Event(), files.save_file

    def save(*arguments: Any) -> None:
        assert opened.wait(20)
        original(*arguments)

    monkeypatch.setattr(files, "save_file", save)
    yield opened
    opened.set()


def value(folder: Path) -> Any:
    state = load_latest_snapshot(folder)
    return None if state is None else state["x"].tolist()


def test_the_work_goes_on_and_changes_nothing_of_what_is_written(gate: threading.Event, tmp_path: Path) -> None:
    writer, x = SnapshotWriter(Alone()), torch.arange(3.0)
    writer.write(tmp_path, 1, {"x": x}, own=None)
    x.fill_(7.0)
    writer.check()
    assert writer.busy and value(tmp_path) is None
    threading.Timer(0.2, gate.set).start()
    # The next one waits for it, since it is copied to the same place.
    writer.write(tmp_path, 2, {"x": x}, own=None)
    assert (tmp_path / "step-000000001").exists()  # and the next one, too, if it was quick
    writer.wait()
    assert value(tmp_path) == [7.0, 7.0, 7.0] and not writer.busy
    (tmp_path / "step-000000002").rename(tmp_path / "last")
    assert value(tmp_path) == [0.0, 1.0, 2.0]


def test_the_end_waits(gate: threading.Event, tmp_path: Path) -> None:
    writer = SnapshotWriter(Alone())
    writer.write(tmp_path, 1, {"x": torch.ones(1)}, own=None)
    threading.Timer(0.2, gate.set).start()
    writer.close()
    assert value(tmp_path) == [1.0]


def test_a_disk_that_refuses_is_an_error_of_the_next_look(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "save_file", full)
    writer = SnapshotWriter(Alone())
    for look in (writer.check, writer.wait, lambda: writer.write(tmp_path, 2, {}, own=None)):
        writer.write(tmp_path, 1, {"x": torch.ones(1)}, own=None)
        while writer.busy:
            time.sleep(0.01)
        with pytest.raises(StorageError, match="step-000000001 cannot be written: No space left"):
            look()
        writer.check()  # told once
    writer.write(tmp_path, 3, {"x": torch.ones(1)}, own=None)
    writer.close()
    assert "The last snapshot is lost: " in caplog.text and "step-000000003 cannot be written" in caplog.text
    assert list(tmp_path.iterdir()) == []


def test_what_no_file_can_hold_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="A snapshot cannot hold x, a set"):
        SnapshotWriter(Alone()).write(tmp_path, 1, {"x": {1}}, own=None)


def test_what_changes_its_shape_gets_new_room(tmp_path: Path) -> None:
    writer = SnapshotWriter(Alone())
    for step, x in enumerate((torch.zeros(2), torch.ones(3), torch.ones(3).bfloat16(), torch.ones(3, 2).t()), 1):
        writer.write(tmp_path, step, {"x": x}, own={"rank": 0})
        writer.wait()
        state = load_latest_snapshot(tmp_path)
        assert state is not None and torch.equal(state["x"], x) and state["x"].dtype == x.dtype
