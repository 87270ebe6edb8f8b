"""`gymnast` commands in processes of their own, for the benchmarks that are made of them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def gymnast(*arguments: str, log: Path, fine: Sequence[int] = (0,)) -> None:
    """Run a `gymnast` command, its output in a log file; what ends this process ends it, too.

    Raises `SystemExit` for an exit status that is not `fine`.
    """
    # Ended as by Ctrl-C: a supervisor that stops a benchmark must not leave its trainings behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    environment = {**os.environ, "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "2")}
    command = [sys.executable, "-m", "gymnast_core.cli", *arguments]
    with log.open("a") as handle:
        process = subprocess.Popen(command, stdout=handle, stderr=handle, env=environment)
        try:
            code = process.wait()
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait()
    if code not in fine:
        raise SystemExit(f"gymnast {arguments[0]} ended with exit code {code}; see {log}.")


def bench(file: Path, folder: Path, *more: str, log: Path) -> list[dict[str, Any]]:
    """Rows of `gymnast bench` of the matrix in a file, begun or gone on with in its folder, whatever they say.

    A matrix that has grown (more arms or seeds) takes the place of the one that is resumed.
    """
    again = ["--resume", str(folder), *more] if (folder / "config.yaml").exists() else []
    gymnast("bench", str(file), *again, log=log, fine=(0, 1))  # 1: a cell has failed, and its row says how
    return [json.loads(line) for line in (folder / "rows.jsonl").read_text().splitlines()]


def gymnast_at_once(commands: Sequence[tuple[Sequence[str], Path]], jobs: int) -> None:
    """Run several `gymnast` commands, (arguments, log file) each, `jobs` of them at a time and with one thread each.

    One that fails does not stop the others; then `SystemExit` names their logs. What ends this process ends them all.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    waiting, failed = list(commands), []
    running: list[tuple[subprocess.Popen[bytes], Path]] = []
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                arguments, log = waiting.pop(0)
                log.parent.mkdir(parents=True, exist_ok=True)
                with log.open("a") as handle:
                    command = [sys.executable, "-m", "gymnast_core.cli", *arguments]
                    running.append((subprocess.Popen(command, stdout=handle, stderr=handle, env=environment), log))
            time.sleep(0.2)
            ended = [(process, log) for process, log in running if process.poll() is not None]
            failed += [log for process, log in ended if process.returncode]
            running = [pair for pair in running if pair not in ended]
    finally:
        for process, _ in running:
            process.terminate()
        for process, _ in running:
            process.wait()
    if failed:
        raise SystemExit(
            f"{len(failed)} of {len(commands)} commands failed; the same command tries them again. See "
            + ", ".join(map(str, failed))
        )
