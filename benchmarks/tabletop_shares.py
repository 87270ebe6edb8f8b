"""Where an iteration of `gymnast train tabletop` spends its CPU time, and what it could gain at most.

    python benchmarks/tabletop_shares.py [--no-compile]

One thread, one process, from the second iteration on; Linux's `perf` samples the native code (Debian: `apt install
linux-perf`). Each sample belongs to one kind of work (`KINDS`). Two trainings, one after the other: as it is, and with
the world model's blocks through torch.compile (needs a C++ compiler). Writes
benchmarks/results/tabletop_shares.{json,md}.
"""

from __future__ import annotations

import argparse
import csv
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from world_model_speed import cpu_name

from gymnast_core.runs.atomic import write_json

RESULTS = Path(__file__).parent / "results"
ITERATIONS = 5
WAYS = {"as it is": False, "world model through torch.compile": True}
PARTS = ("imagining", "updating")
PRODUCTS = "matrix products"
ELEMENTS = "elementwise, norms, softmax, copies"
MEMORY = "allocation and page faults"
INTERPRETER = "Python and dispatch"
OTHER = "videos and the rest"
KINDS: tuple[tuple[str, str, str], ...] = (
    # kind, library, symbol: the first row that fits
    (PRODUCTS, r"\[JIT\]|libmkl", ""),  # oneDNN generates its products when they are first called
    (PRODUCTS, r"libtorch_cpu", r"mkl_|gemm|dnnl|bmm|flash_attention|convolution"),
    (
        ELEMENTS,
        r"libtorch_cpu",
        r"Vectorized|vectorized|kernel|Kernel|LayerNorm|softmax|serial_for_each|Sleef|Moments|_sum|NormalFill|copy",
    ),
    (ELEMENTS, r"libc\.so", r"mem(move|cpy|set)"),
    (ELEMENTS, r"libm\.so", ""),
    (MEMORY, r"libc\.so", r"alloc|free|chunk|memalign"),
    (MEMORY, r"\[kernel|\[k\]", ""),
    (ELEMENTS, r"^c[a-z0-9]{20,}.*\.so", "kernel"),  # what torch.compile made
    (INTERPRETER, r"libpython|python3|libtorch_python|libtorch_cpu|libc10|libstdc\+\+|libgcc|ld-linux|libc\.so", ""),
    (OTHER, "", ""),
)


def kind_of(library: str, symbol: str) -> str:
    """What a sample's time went to."""
    return next(kind for kind, of, name in KINDS if re.search(of, library) and re.search(name, symbol))


def shares(report: str) -> dict[str, float]:
    """Shares by kind, of the lines "samples|library|symbol" of `perf report`."""
    found = dict.fromkeys((kind for kind, _, _ in KINDS), 0)
    for line in report.splitlines():
        if line.count("|") < 2 or line.startswith("#"):
            continue
        samples, library, symbol = line.split("|", 2)
        found[kind_of(library.strip(), symbol.strip())] += int(samples)
    every = sum(found.values())
    if not every:
        raise SystemExit("`perf report` showed no sample. perf may need kernel.perf_event_paranoid at 2 or less.")
    return {kind: samples / every for kind, samples in found.items()}


def finished_iterations(run: Path) -> list[dict[str, str]]:
    metrics = run / "metrics.csv"
    if not metrics.is_file():
        return []
    with metrics.open() as file:
        return list(csv.DictReader(file))


def wait_for(count: int, run: Path, training: subprocess.Popen[bytes]) -> None:
    while len(finished_iterations(run)) < count:
        if training.poll() is not None:
            raise SystemExit(f"The training ended with {training.returncode}: {training.args!r}")
        time.sleep(0.05)


def measured(compiled: bool) -> dict[str, Any]:
    """Seconds of an iteration's parts, and shares of their CPU time, without the first iteration."""
    with tempfile.TemporaryDirectory() as name:
        run, samples = Path(name) / "run", Path(name) / "samples"
        training = start_training(run, compiled)
        try:
            watch(run, samples, training)
            training.wait()
        finally:
            if training.poll() is None:
                training.terminate()
                training.wait()
        rows = finished_iterations(run)[1:]
        found = shares(report_of(samples))
    seconds = {part: statistics.median(float(row[f"seconds_{part}"]) for row in rows) for part in PARTS}
    return {**seconds, "shares": found}


def start_training(run: Path, compiled: bool) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    command = [
        sys.executable, "-m", "gymnast_core.cli", "train", "tabletop", "evaluation.tasks=null",
        f"loop.iterations={ITERATIONS}", f"world_model.args.compile={str(compiled).lower()}", f"output={run}",
    ]  # fmt: skip
    quiet = subprocess.DEVNULL
    return subprocess.Popen(command, env=environment, cwd=run.parent, stdout=quiet, stderr=quiet)


def watch(run: Path, samples: Path, training: subprocess.Popen[bytes]) -> None:
    """Sample the training from the end of its first iteration to that of its last."""
    wait_for(1, run, training)
    command = ["perf", "record", "-e", "cpu-clock", "-F", "997", "-p", str(training.pid), "-o", str(samples)]
    perf = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for(ITERATIONS, run, training)
    finally:
        perf.send_signal(signal.SIGINT)
        perf.wait()


def report_of(samples: Path) -> str:
    """Lines "samples|library|symbol"."""
    command = ["perf", "report", "-i", str(samples), "--no-children", "--stdio", "-g", "none", "-t", "|"]
    return subprocess.run([*command, "-F", "sample,dso,symbol"], capture_output=True, text=True, check=True).stdout


def page(found: dict[str, Any]) -> str:
    columns = found["ways"]
    lines = [
        f"`python benchmarks/tabletop_shares.py`; {found['machine']}, one thread, torch {found['torch']}. Iterations 2 "
        f"to {ITERATIONS} of `gymnast train tabletop`, 384 rollouts each.",
        "",
        "| | " + " | ".join(columns) + " |",
        "|---" * (1 + len(columns)) + "|",
    ]
    for part in PARTS:
        cells = " | ".join(f"{column[part]:.1f}" for column in columns.values())
        lines.append(f"| {part}, s (median) | {cells} |")
    for kind in next(iter(columns.values()))["shares"]:
        cells = " | ".join(f"{100 * column['shares'][kind]:.0f} %" for column in columns.values())
        lines.append(f"| of the CPU time: {kind} | {cells} |")
    return "\n".join([*lines, ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--no-compile", action="store_true", help="leave out torch.compile")
    options = parser.parse_args()
    if shutil.which("perf") is None:
        parser.error("Linux's perf is not installed. On Debian: apt install linux-perf")
    found = {
        "machine": cpu_name(), "torch": torch.__version__,
        "ways": {name: measured(compiled) for name, compiled in WAYS.items() if not (compiled and options.no_compile)},
    }  # fmt: skip
    write_json(RESULTS / "tabletop_shares.json", found)
    (RESULTS / "tabletop_shares.md").write_text(page(found))
    print(page(found))


if __name__ == "__main__":
    main()
