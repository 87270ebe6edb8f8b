"""CPU seconds from the start of `gymnast train tabletop` to its first imagined frame, by phase.

    python benchmarks/startup.py [--runs 3] [--other PYTHON]

Each run is a process of its own with one thread, ended at the end of the world model's first step of one group; of each
phase the smallest of the runs is printed, since whatever else the machine does only adds. PYTHON is the interpreter of
an environment with another version of Gymnast, run in turns with this one. Prints JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

CHILD = """
import json, os, sys, time
marks = [("interpreter", time.process_time())]
def mark(phase):
    marks.append((phase, time.process_time()))
from gymnast_core import cli
mark("command line")
try:
    from gymnast_core.plugins.importing import undisturbed
except ImportError:  # of earlier versions
    from contextlib import nullcontext as undisturbed
with undisturbed():
    from gymnast_core.training import run
mark("training's imports")
build_parts = run.build_parts
def timed_build(*arguments, **options):
    mark("config, trainer")
    parts = build_parts(*arguments, **options)
    mark("parts")
    step = parts.world_model.step
    def timed_step(state, actions):
        mark("until the first step")
        step(state, actions)
        mark("first step")
        ends = [0.0, *(seconds for _, seconds in marks)]
        print(json.dumps({phase: end - start for (phase, end), start in zip(marks, ends)}), flush=True)
        os._exit(0)
    parts.world_model.step = timed_step
    return parts
run.build_parts = timed_build
cli.main()
"""


def seconds(python: str) -> dict[str, float]:
    """CPU seconds of one start, by phase."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    overrides = ["evaluation.tasks=null", "loop.tasks_per_iteration=1"]
    with tempfile.TemporaryDirectory() as folder:
        command = [python, "-c", CHILD, "train", "tabletop", *overrides, f"output={folder}/run"]
        done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True, cwd=folder)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--other", type=Path, help="interpreter of the other environment")
    options = parser.parse_args()
    pythons = {"here": sys.executable} | ({"other": str(options.other)} if options.other else {})
    found: dict[str, list[dict[str, float]]] = {name: [] for name in pythons}
    for _ in range(options.runs):
        for name, python in pythons.items():
            found[name].append(seconds(python))
    for name, rows in found.items():
        least = {phase: round(min(row[phase] for row in rows), 2) for phase in rows[0]}
        least["all"] = round(min(sum(row.values()) for row in rows), 2)
        print(json.dumps({name: least}, indent=1))


if __name__ == "__main__":
    main()
