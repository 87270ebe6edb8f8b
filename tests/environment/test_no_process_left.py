"""However the process that started them ends, no worker outlives it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

STARTED: list[subprocess.Popen[str]] = []

PRELUDE = """
import sys, time
import numpy as np
from gymnast_core.types import EnvironmentStart
from gymnast_environment.environments import Environments
from gymnast_environment.hosting import Hosting
from plain_environment import ID

environments = Environments(hosting=Hosting(workers=2), check_resets=False)
args = {"fault": sys.argv[1]} if sys.argv[1] else {}
lives = environments.reset([EnvironmentStart(ID, seed, {}, args) for seed in range(2)])
print(*(environments.call(live, "pid") for live in lives), flush=True)
step = lambda: environments.step(lives, [np.ones((3, 2), np.float32)] * 2)
"""


@pytest.fixture(autouse=True)
def _none_is_left() -> Iterator[None]:
    """Not even by a test that fails: they step for ever."""
    yield
    while STARTED:
        process = STARTED.pop()
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)


def run(ending: str, fault: str = "") -> tuple[subprocess.Popen[str], list[int]]:
    """The process, and its workers' ids."""
    folder = str(Path(__file__).parent)
    process = subprocess.Popen(
        [sys.executable, "-c", PRELUDE + ending, fault],
        env={**os.environ, "PYTHONPATH": folder},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    STARTED.append(process)
    assert process.stdout is not None
    return process, [int(word) for word in process.stdout.readline().split()]


def left(pids: list[int], seconds: float = 10.0) -> list[int]:
    """Which of these processes are still there after so long."""
    end = time.monotonic() + seconds
    while pids and time.monotonic() < end:
        pids = [pid for pid in pids if Path(f"/proc/{pid}").exists() and not _is_zombie(pid)]
        time.sleep(0.02)
    return pids


def _is_zombie(pid: int) -> bool:
    """Dead, and nobody's child but the container's first process, which may not care."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


@pytest.mark.parametrize("ending", ["step(); raise KeyError('oh')", "environments.close()"])
def test_an_ordinary_end(ending: str) -> None:
    process, pids = run(ending)
    process.communicate(timeout=60)
    assert len(pids) == 2 and not left(pids, 0.5)


@pytest.mark.parametrize(
    ("fault", "number"), [("", signal.SIGKILL), ("hold", signal.SIGKILL), ("hang", signal.SIGTERM)]
)
def test_a_signal_while_they_step(fault: str, number: int) -> None:
    """Also while a simulator hangs in C and holds Python's lock."""
    process, pids = run("print('stepping', flush=True)\nwhile True: step()", fault)
    assert process.stdout is not None and process.stdout.readline() == "stepping\n"
    time.sleep(0.3)
    process.send_signal(number)
    assert process.wait(timeout=30) == -number
    assert len(pids) == 2 and not left(pids)
    process.communicate()


@pytest.mark.parametrize("fault", ["", "hang"])
def test_ctrl_c_tells_of_itself_alone(fault: str) -> None:
    process, pids = run("print('stepping', flush=True)\nwhile True: step()", fault)
    assert process.stdout is not None and process.stdout.readline() == "stepping\n"
    time.sleep(0.3)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to everybody in the group
    _, told = process.communicate(timeout=60)
    assert told.rstrip().endswith("KeyboardInterrupt") and "worker/" not in told, told
    assert len(pids) == 2 and not left(pids)
