"""Runs one cell and writes down how it ended. Started as a process of its own: `python -m gymnast_bench.supervisor`.

The cell is a process group, so that stopping it stops all that it started. Whoever started the supervisor holds its
standard input; when that closes, the starter is gone and the cell is killed without a result, to be resumed.

A cell's folder holds `cell.json` (the commands that start and resume it, environment, budget), `run/` (the run folder),
`log.txt`, `clock.json` (seconds used so far) and, once it has ended, `result.json`.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import os
import re
import resource
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from gymnast_core.config.ranges import Range
from gymnast_core.errors import DataError, StorageError
from gymnast_core.money import in_dollars
from gymnast_core.reading import read_object
from gymnast_core.runs.atomic import storing, write_text
from gymnast_core.runs.spending import Spending
from gymnast_core.signals import TERMINATED

DONE, FAILED, OUT_OF_MEMORY, KILLED, OVER_BUDGET = "done", "failed", "out of memory", "killed", "over budget"
FAILURES = (FAILED, OUT_OF_MEMORY, KILLED)
"""How a cell ends that nobody wanted to end so."""

REFUSED = 3
"""Exit status of a supervisor whose folder cannot be written."""
POLL_SECONDS = 0.1
CHECK_SECONDS = 1.0
"""Between two looks at what the cell has spent."""
GRACE_SECONDS = 5.0
"""From SIGTERM to SIGKILL of a cell that is over its budget."""
LOCK_SECONDS = 60.0
"""How long a cell's folder may still be in use by a process that a killed bench left behind."""

_PR_SET_PDEATHSIG = 1
_OUT_OF_MEMORY = re.compile(
    r"OutOfMemoryError|MemoryError|CUDA out of memory|std::bad_alloc|DefaultCPUAllocator: (?:can't|not enough)", re.I
)
_OOM_EVENTS = Path("/sys/fs/cgroup/memory.events")


def supervise(folder: Path, abandoned: Callable[[], bool]) -> dict[str, Any] | None:
    """Run the cell of `folder` until it ends or is over its budget, and return what result.json then holds.

    None, and no result, once `abandoned()` is true. A run that was begun is resumed. Raises `StorageError`.
    """
    spec = read_object(folder / "cell.json").values
    run = folder / "run"
    with _opened(folder / ".lock", "w") as lock, _opened(folder / "log.txt", "ab") as log:
        if not _lock(lock):
            return _result(folder, FAILED, f"{folder} is in use by another process.", None, Clock(folder))
        begun = (run / "config.yaml").exists()
        clock, kills, logged = Clock(folder, attempt=True), _oom_kills(), log.tell()
        process = subprocess.Popen(
            spec["resume"] if begun else spec["start"], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            start_new_session=True, preexec_fn=_die_with_parent, env={**os.environ, **spec["environment"]},
            pass_fds=(lock.fileno(),),
        )  # fmt: skip
        try:
            stopped = _watch(process, run, spec, clock, abandoned)
        finally:
            _kill_group(process)
            clock.save()
        if stopped is _ABANDONED:
            return None
        text = _tail(folder / "log.txt", logged)
        if stopped is not None:
            return _result(folder, stopped.status, stopped.reason, process.returncode, clock)
        status, reason = _verdict(process.returncode, text, _oom_kills() > kills, (run / "summary.json").exists())
        return _result(folder, status, reason, process.returncode, clock)


class Clock:
    """Seconds and attempts of a cell, kept on the disk so that a killed bench does not hand out a second budget."""

    def __init__(self, folder: Path, attempt: bool = False) -> None:
        self._path = folder / "clock.json"
        self._before, self.attempts = 0.0, int(attempt)
        if self._path.exists():
            known = read_object(self._path)
            self._before = known.number("seconds", Range(least=0))
            self.attempts += known.integer("attempts", Range(least=0))
        self._began = time.monotonic()

    @property
    def seconds(self) -> float:
        return self._before + time.monotonic() - self._began

    def save(self) -> None:
        write_text(self._path, json.dumps({"seconds": self.seconds, "attempts": self.attempts}))


@dataclass(frozen=True)
class _Stopped:
    """Why a cell may not go on."""

    status: str
    reason: str


_ABANDONED = _Stopped("", "whoever started the supervisor is gone")


def _watch(
    process: subprocess.Popen[bytes], run: Path, spec: dict[str, Any], clock: Clock, abandoned: Callable[[], bool]
) -> _Stopped | None:
    """Wait for the process. None: it ended by itself; else why it was stopped, or is to be."""
    minutes, dollars = spec["minutes"], spec["dollars"]
    next_check, spending = 0.0, Spending(run)
    while process.poll() is None:
        if abandoned():
            return _ABANDONED
        if time.monotonic() >= next_check:
            next_check = time.monotonic() + CHECK_SECONDS
            clock.save()
            beyond = _beyond(spending, dollars)
            if beyond is not None:
                _stop(process)
                return beyond
        if minutes is not None and clock.seconds > 60 * minutes:
            _stop(process)
            ran = f"It ran for {clock.seconds / 60:.3g} minutes of budget.minutes={minutes:g}."
            return _Stopped(OVER_BUDGET, ran)
        time.sleep(POLL_SECONDS)
    beyond = None if (run / "summary.json").exists() else _beyond(spending, dollars)
    # What else is wrong with its costs must not hide why it ended.
    return beyond if beyond is not None and beyond.status == OVER_BUDGET else None


def _beyond(spending: Spending, dollars: float | None) -> _Stopped | None:
    """Why a run is not within its budget, or cannot be kept there; None if it is."""
    if dollars is None:
        return None
    try:
        spent = spending.usd()
    except DataError as error:
        return _Stopped(FAILED, str(error))
    if spent is None:
        return _Stopped(
            FAILED,
            f"What its judge costs is not known, so that budget.dollars={dollars:g} cannot be kept. Give the judge's "
            "args.prices, or set budget.dollars=null to spend without a limit.",
        )
    over = f"{in_dollars(spent)} were spent of budget.dollars={dollars:g}."
    return _Stopped(OVER_BUDGET, over) if spent > dollars else None


def _stop(process: subprocess.Popen[bytes]) -> None:
    _signal_group(process, signal.SIGTERM)
    end = time.monotonic() + GRACE_SECONDS
    while process.poll() is None and time.monotonic() < end:
        time.sleep(POLL_SECONDS)


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    # Also after its leader has ended: what it started may go on.
    _signal_group(process, signal.SIGKILL)
    process.wait()


def _signal_group(process: subprocess.Popen[bytes], number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)


def _verdict(code: int, text: str, kernel_killed: bool, summary: bool) -> tuple[str, str]:
    """Status and reason of a cell that ended by itself or was killed by somebody else."""
    if code == 0 and summary:
        return DONE, ""
    last = _last_words(text)
    if _OUT_OF_MEMORY.search(text):
        return OUT_OF_MEMORY, last
    # A command that SIGTERM ends says so by its status, as shells have it.
    code = -signal.SIGTERM if code == TERMINATED else code
    if code < 0:
        name = signal.Signals(-code).name
        if code == -signal.SIGKILL and kernel_killed:
            return OUT_OF_MEMORY, "The kernel killed it because memory ran out (SIGKILL)."
        advice = ", most often because memory ran out" if code == -signal.SIGKILL else ""
        return KILLED, f"It was killed by {name}{advice}. Last words: {last or 'none'}"
    if code == 0:
        return FAILED, "It ended without a summary.json."
    return FAILED, last or f"It ended with exit code {code} without a word."


def _last_words(text: str) -> str:
    """The last "Error: ..." of a log, to its end, or else its last line."""
    at = max(text.rfind("\nError: "), 0 if text.startswith("Error: ") else -1)
    if at >= 0:
        return " ".join(text[at:].split())[:1000].removeprefix("Error: ")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:1000] if lines else ""


def _result(folder: Path, status: str, reason: str, code: int | None, clock: Clock) -> dict[str, Any]:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    unit = 1 if sys.platform == "darwin" else 1024
    result = {
        "status": status,
        "reason": reason,
        "exit_code": code,
        "seconds": clock.seconds,
        "attempts": clock.attempts,
        "cpu_seconds": used.ru_utime + used.ru_stime,
        "peak_memory_bytes": used.ru_maxrss * unit,
    }
    write_text(folder / "result.json", json.dumps(result, indent=1))
    return result


def _opened(path: Path, mode: str) -> IO[Any]:
    with storing(path):
        return path.open(mode)


def _lock(file: IO[str]) -> bool:
    """The cell inherits the lock, so the folder stays locked until the last process that writes to it has ended."""
    end = time.monotonic() + LOCK_SECONDS
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() > end:
                return False
            time.sleep(POLL_SECONDS)


def _die_with_parent() -> None:
    # The one thread of this process is the one that starts the cell, so the signal cannot come too early.
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _oom_kills() -> int:
    """How many processes of our control group the kernel has killed for memory."""
    try:
        return int(dict(line.split() for line in _OOM_EVENTS.read_text().splitlines())["oom_kill"])
    except (OSError, KeyError, ValueError):
        return 0


def _tail(log: Path, start: int, size: int = 20_000) -> str:
    with log.open("rb") as file:
        file.seek(max(start, log.stat().st_size - size))
        return file.read().decode(errors="replace")


def _input_closed() -> bool:
    readable, _, _ = select.select([sys.stdin], [], [], 0)
    return bool(readable) and not os.read(sys.stdin.fileno(), 1)


def main() -> None:
    """Supervise the cell of the folder that the command line gives.

    What cannot be written down ends this process with `REFUSED`; standard output is for what to tell of that.
    """
    try:
        supervise(Path(sys.argv[1]), _input_closed)
    except StorageError as error:
        print(error)
        sys.exit(REFUSED)


if __name__ == "__main__":
    main()
