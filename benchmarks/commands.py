"""`gymnast` commands in processes of their own, for the benchmarks that are made of them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path


def gymnast(*arguments: str, log: Path) -> None:
    """Run a `gymnast` command, its output in a log file; what ends this process ends it, too."""
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
    if code:
        raise SystemExit(f"gymnast {arguments[0]} ended with exit code {code}; see {log}.")
