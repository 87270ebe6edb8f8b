"""Where cells run: in processes of this machine, or on a Ray cluster. Both yield each cell's folder as it ends."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path

from gymnast_bench.config import BenchConfig
from gymnast_bench.supervisor import POLL_SECONDS, REFUSED
from gymnast_core.errors import PluginError, StorageError
from gymnast_ray.cluster import ADDRESS, connect

ENDING_SECONDS = 30.0
"""From the end of the bench to that of the supervisors, which kill their cells first."""


def run_cells(folders: Sequence[Path], config: BenchConfig, threads: int) -> Iterator[Path]:
    """Run the cells of these folders, `config.jobs` at once.

    Raises `PluginError` if the executor is not installed, `StorageError` if a cell's folder cannot be written.
    """
    return run_on_ray(folders, config, threads) if config.executor == "ray" else run_local(folders, config.jobs)


def run_local(folders: Sequence[Path], jobs: int) -> Iterator[Path]:
    """A supervisor a cell; closing its standard input, which our own death does too, ends it with its cell."""
    waiting, running = deque(folders), dict[Path, subprocess.Popen[bytes]]()
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                folder = waiting.popleft()
                running[folder] = _supervisor(folder)
            ended = [folder for folder, process in running.items() if process.poll() is not None]
            for folder in ended:
                _check(_ended(running.pop(folder)))
                yield folder
            if not ended:
                time.sleep(POLL_SECONDS)
    finally:
        for process in running.values():
            _close(process)
        for process in running.values():
            process.wait(ENDING_SECONDS)


def run_on_ray(folders: Sequence[Path], config: BenchConfig, threads: int) -> Iterator[Path]:
    """A Ray task a cell, at most `config.jobs` at once. The cluster's nodes must see the same folders."""
    try:
        import ray
    except ImportError as error:
        raise PluginError(
            "executor=ray needs Ray, which cannot be imported. Type `pip install 'gymnast[ray]'`, or set "
            "executor=local."
        ) from error
    started_here = not ray.is_initialized()
    if started_here:
        connect(config.address or os.environ.get(ADDRESS), "address", {})
    # A cell that is killed is a result, not a reason to try again: the supervisor resumes what can be resumed.
    task = ray.remote(num_cpus=threads, num_gpus=config.gpus, max_retries=0)(_supervise_on_ray)
    waiting, running = deque(folders), dict[object, Path]()
    try:
        while waiting or running:
            while waiting and len(running) < config.jobs:
                folder = waiting.popleft()
                running[task.remote(str(folder))] = folder
            ended, _ = ray.wait(list(running), num_returns=1)
            for reference in ended:
                folder = running.pop(reference)
                with contextlib.suppress(ray.exceptions.RayError):  # a lost node leaves no result, which is reported
                    _check(ray.get(reference))
                yield folder
    finally:
        for reference in running:
            ray.cancel(reference, force=True)
        if started_here:
            ray.shutdown()


def _supervise_on_ray(folder: str) -> str:
    # Not in the worker itself: it lives on for other cells, and their memory would be counted together.
    process = _supervisor(Path(folder))
    process.wait()
    return _ended(process)


def _supervisor(folder: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "gymnast_bench.supervisor", str(folder)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True)


def _ended(process: subprocess.Popen[bytes]) -> str:
    """Of a supervisor that has ended: why its folder cannot be written; "" if it could."""
    _close(process)
    assert process.stdout is not None
    with process.stdout:
        said = process.stdout.read().decode(errors="replace").strip()
    return said if process.returncode == REFUSED else ""


def _check(refused: str) -> None:
    """Raises `StorageError`: where one cell cannot be written, neither can the bench."""
    if refused:
        raise StorageError(refused)


def _close(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin is not None
    process.stdin.close()
