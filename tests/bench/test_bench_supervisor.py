"""How a cell is watched: its time, its memory, its children."""

from __future__ import annotations

import json
import re
import sys
import time
from pathlib import Path

import pytest
from bench_parts import alive, wait_until

from gymnast_bench.config import BenchConfig
from gymnast_bench.executors import run_cells
from gymnast_bench.supervisor import supervise
from gymnast_core.errors import StorageError
from gymnast_core.runs.spending import Payment, note


def make_cell(folder: Path, code: str, **limits: float) -> Path:
    """A cell that runs Python code instead of a training."""
    command = [sys.executable, "-c", code, str(folder)]
    spec = {"start": command, "resume": command, "environment": {}, "minutes": None, "dollars": None, **limits}
    folder.mkdir(exist_ok=True)
    (folder / "cell.json").write_text(json.dumps(spec))
    return folder


def never() -> bool:
    return False


def test_time_that_runs_out_ends_the_cell_and_what_it_started(tmp_path: Path) -> None:
    code = (
        "import subprocess, sys; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(99)', sys.argv[1]])"
    )
    cell = make_cell(tmp_path / "cell", f"{code}; import time; time.sleep(99)", minutes=0.02)
    began = time.monotonic()
    result = supervise(cell, never)
    assert result is not None and result["status"] == "over budget" and "budget.minutes=0.02" in result["reason"]
    assert 1.2 <= result["seconds"] <= time.monotonic() - began < 30
    assert not alive(str(cell))
    assert json.loads((cell / "result.json").read_text()) == result


@pytest.mark.parametrize(
    ("usd", "status", "said"),
    [(0.6, "over budget", r"\$0.60 were spent of budget.dollars=0.5"), (None, "failed", "is not known")],
)
def test_money_that_is_spent_ends_the_cell(usd: float | None, status: str, said: str, tmp_path: Path) -> None:
    """Whatever it was spent on, and in whichever attempt; what costs nobody knows how much keeps to no budget."""
    cell = make_cell(tmp_path / "cell", "import time; time.sleep(99)", dollars=0.5)
    note(cell / "run", Payment("evaluation", 0, usd))
    result = supervise(cell, never)
    assert result is not None and result["status"] == status
    assert re.search(said, result["reason"])


def test_a_damaged_record_of_costs_is_that_cells_result(tmp_path: Path) -> None:
    cell = make_cell(tmp_path / "cell", "import time; time.sleep(99)", dollars=0.5)
    (cell / "run").mkdir()
    (cell / "run/spending.jsonl").write_text("much\n")
    result = supervise(cell, never)
    assert result is not None and result["status"] == "failed" and "spending.jsonl, line 1" in result["reason"]


def test_money_within_the_budget_ends_nothing(tmp_path: Path) -> None:
    code = "import sys, pathlib; (pathlib.Path(sys.argv[1]) / 'run/summary.json').write_text('{}')"
    cell = make_cell(tmp_path / "cell", code, dollars=0.5)
    note(cell / "run", Payment("training", 1, 0.5))
    result = supervise(cell, never)
    assert result is not None and result["status"] == "done"


def test_time_counts_over_attempts(tmp_path: Path) -> None:
    cell = make_cell(tmp_path / "cell", "import time; time.sleep(99)", minutes=1.0)
    (cell / "clock.json").write_text(json.dumps({"seconds": 59.8, "attempts": 3}))
    began = time.monotonic()
    result = supervise(cell, never)
    assert result is not None and result["attempts"] == 4 and result["status"] == "over budget"
    assert time.monotonic() - began < 20


def test_a_cell_that_ignores_sigterm_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gymnast_bench.supervisor.GRACE_SECONDS", 0.3)
    code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(99)"
    result = supervise(make_cell(tmp_path / "cell", code, minutes=0.05), never)
    assert result is not None and result["status"] == "over budget" and result["exit_code"] == -9


@pytest.mark.parametrize(
    ("code", "status", "reason"),
    [
        ("x = [0] * (1 << 60)", "out of memory", "MemoryError"),
        ("import os; os.kill(os.getpid(), 9)", "killed", "SIGKILL, most often because memory ran out"),
        ("import os; os.abort()", "killed", "SIGABRT"),
        ("import sys; print('Stopped.'); sys.exit(143)", "killed", "SIGTERM. Last words: Stopped."),
        ("raise ValueError('no such thing')", "failed", "ValueError: no such thing"),
        ("import sys; print('Error: bad key.'); sys.exit(2)", "failed", "bad key."),
        ("pass", "failed", "without a summary.json"),
    ],
)
def test_the_end_of_a_cell_is_told_as_it_was(code: str, status: str, reason: str, tmp_path: Path) -> None:
    cell = make_cell(tmp_path / "cell", code)
    (cell / "log.txt").write_text("MemoryError of an earlier attempt\n")
    result = supervise(cell, never)
    assert result is not None and result["status"] == status and reason in result["reason"]


def test_an_abandoned_cell_is_killed_without_a_result(tmp_path: Path) -> None:
    cell = make_cell(tmp_path / "cell", "import time; time.sleep(99)")
    assert supervise(cell, lambda: bool(alive(str(cell)))) is None
    assert not (cell / "result.json").exists()
    assert json.loads((cell / "clock.json").read_text())["attempts"] == 1
    wait_until(lambda: not alive(str(cell)), 5)


def test_a_cell_that_cannot_be_written_ends_the_bench(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    whole, refused = make_cell(tmp_path / "whole", "pass"), make_cell(tmp_path / "refused", "pass")
    (refused / ".lock").mkdir()
    cells = run_cells([whole, refused], BenchConfig(base="tabletop", jobs=1), threads=1)
    assert next(cells) == whole
    with pytest.raises(StorageError, match=rf"^{refused}/.lock cannot be written: Is a directory"):
        next(cells)
    assert capfd.readouterr() == ("", "")
    assert not (refused / "result.json").exists()
