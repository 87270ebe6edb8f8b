"""What an iteration of the tabletop takes, here and in another installation, in turns on one machine.

    python benchmarks/loop_overhead.py [--other PYTHON] [--runs 3] [--iterations 4]

PYTHON is the interpreter of an environment with another version of Gymnast, e.g. of an earlier commit. Each run is
`gymnast train tabletop` without evaluations in a process of its own; the first iteration, which warms up, is left out.
Writes benchmarks/results/loop_overhead.json and prints medians. Only quiet machines give numbers worth comparing.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

RESULT = Path(__file__).parent / "results" / "loop_overhead.json"


def seconds(python: str, iterations: int, folder: Path) -> list[dict[str, float]]:
    """Imagining, updating and all of it, of each iteration but the first."""
    overrides = [f"loop.iterations={iterations}", "evaluation.tasks=null", f"output={folder}"]
    environment = {**os.environ, "OMP_NUM_THREADS": "2", "OMP_WAIT_POLICY": "PASSIVE"}
    command = [python, "-m", "gymnast_core.cli", "train", "tabletop", *overrides]
    # Elsewhere than in a checkout, which `-m` would import from.
    subprocess.run(command, env=environment, check=True, capture_output=True, cwd=folder.parent)
    with (folder / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))[1:]
    found = [(float(row["seconds_imagining"]), float(row["seconds_updating"])) for row in rows]
    return [{"imagining": a, "updating": b, "iteration": a + b} for a, b in found]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--other", help="interpreter of the other environment")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--iterations", type=int, default=4)
    options = parser.parse_args()
    pythons = {"here": sys.executable} | ({"other": options.other} if options.other else {})
    found: dict[str, list[dict[str, float]]] = {name: [] for name in pythons}
    for run in range(options.runs):
        for name, python in pythons.items():
            with tempfile.TemporaryDirectory() as folder:
                found[name] += seconds(python, options.iterations, Path(folder) / f"run-{run}")
    medians = {
        name: {part: round(statistics.median(row[part] for row in rows), 3) for part in rows[0]}
        for name, rows in found.items()
    }
    if options.other:
        pairs = zip(found["here"], found["other"], strict=True)
        ratios = [mine["iteration"] / theirs["iteration"] for mine, theirs in pairs]
        medians["ratio"] = {"median": statistics.median(ratios), "lowest": min(ratios), "highest": max(ratios)}
    RESULT.write_text(json.dumps({"medians": medians, "rows": found}, indent=1) + "\n")
    print(json.dumps(medians, indent=1))


if __name__ == "__main__":
    main()
