"""Nothing of Ray is left behind when a training is killed. (`benchmarks/ray_engine.py` tries gentler ends, too.)"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import ray_parts

pytest.importorskip("ray")

TRAINING = """
import sys
sys.path[:0] = [{installed!r}, {here!r}]
import ray_parts
from gymnast_core.config import ComponentConfig
from gymnast_core.training.run import train

engine = ComponentConfig("ray", {{"workers": 1, "object_store_gib": 0.08, "staleness": 1}})
train(ray_parts.config("run", engine, {{"step_seconds": 0.2, "notes": "notes"}}, iterations=1000))
"""


LAST_WORDS = ("ray::DashboardAgent", "ray::RuntimeEnvAgent")
"""Ray's agents: after a kill they try for a minute to tell the dead of it, and end then."""


def processes() -> dict[int, tuple[int, str]]:
    """Parent and command of every process of this machine."""
    listed = subprocess.run(["ps", "-eo", "pid=,ppid=,args="], capture_output=True, text=True, check=True).stdout
    cells = (line.split(maxsplit=2) for line in listed.splitlines())
    return {int(pid): (int(parent), "".join(command)) for pid, parent, *command in cells}


def below(process: int) -> set[int]:
    """Everything that a process has started, directly or not."""
    parents = processes()
    found, new = set(), {process}
    while new:
        new = {pid for pid, (parent, _) in parents.items() if parent in new}
        found |= new
    return found


def left(found: set[int], seconds: float) -> dict[int, str]:
    """Which of those are still there after that time at most, agents left out."""
    deadline = time.monotonic() + seconds
    while True:
        still = {pid: command for pid, (_, command) in processes().items() if pid in found}
        still = {pid: command for pid, command in still.items() if not command.startswith(LAST_WORDS)}
        if not still or time.monotonic() > deadline:
            return still
        time.sleep(0.1)


def started(folder: Path) -> tuple[subprocess.Popen[str], set[int]]:
    """A training on Ray, at work, and everything below it."""
    installed, notes = folder / "installed", folder / "notes"
    installed.mkdir()
    notes.mkdir()
    ray_parts.install(installed)
    code = TRAINING.format(installed=str(installed), here=str(Path(__file__).parent))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "RAY_ADDRESS": ""}
    training = subprocess.Popen(
        [sys.executable, "-c", code], cwd=folder, env=environment, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip
    while not any(notes.iterdir()):
        assert training.poll() is None, training.communicate()
        time.sleep(0.05)
    found = below(training.pid)
    assert {int(file.name) for file in notes.iterdir()} <= found, "the worker is one of them"
    return training, found


def test_all_processes_end_when_the_training_is_killed(tmp_path: Path) -> None:
    training, found = started(tmp_path)
    assert len(found) > 3
    training.kill()
    training.wait(60)
    assert left(found, 60) == {}
