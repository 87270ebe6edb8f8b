"""How long an iteration of `gymnast train tabletop` takes, by how it uses the cores; against another version, too.

    python benchmarks/tabletop_speed.py [--rounds 3] [--ways ...] [--other PYTHON --commit COMMIT --checkpoint FOLDER]

Ways, in turns, each a process (or two) of its own that learns from 4 iterations of the preset, without evaluations:

  one thread               OMP_NUM_THREADS=1
  default                  nothing said: PyTorch's threads take every core
  two processes            trainer.devices=2 trainer.strategy=ddp, one thread each: what `make demo` does
  two processes, sharded   the same with trainer.strategy=fsdp2

PYTHON is the interpreter of an environment with another version of Gymnast, built from COMMIT; it runs the first two.
FOLDER is the policy that all begin with, so that both versions learn from alike groups; without it each takes its own.
Medians over the iterations after the first, wall seconds, on quiet cores; and CPU seconds of the whole run, which a
busy machine changes less. Writes benchmarks/results/tabletop_speed.{json,md}.
"""

from __future__ import annotations

import argparse
import csv
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from gymnast_core.runs.atomic import write_json

RESULTS = Path(__file__).parent / "results"
ITERATIONS = 4
COMMON = (f"loop.iterations={ITERATIONS}", "evaluation.tasks=null")
ONE_THREAD = {"OMP_NUM_THREADS": "1"}
WAYS: dict[str, tuple[dict[str, str], tuple[str, ...]]] = {
    "one thread": (ONE_THREAD, ()),
    "default": ({}, ()),
    "two processes": (ONE_THREAD, ("trainer.devices=2", "trainer.strategy=ddp")),
    "two processes, sharded": (ONE_THREAD, ("trainer.devices=2", "trainer.strategy=fsdp2")),
}
OTHERS = ("one thread", "default")
"""Ways of the other version."""


def measured(python: str, way: str, checkpoint: Path | None) -> dict[str, Any]:
    """One run: seconds imagining and updating of each iteration but the first, and of the whole."""
    variables, overrides = WAYS[way]
    if checkpoint is not None:
        overrides = (*overrides, f"policy.args.checkpoint={checkpoint.resolve()}")
    environment = {key: value for key, value in os.environ.items() if key != "OMP_NUM_THREADS"}
    environment |= {"OMP_WAIT_POLICY": "PASSIVE", **variables}
    with tempfile.TemporaryDirectory() as folder:
        command = [python, "-m", "gymnast_core.cli", "train", "tabletop", *COMMON, *overrides, f"output={folder}/run"]
        before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
        subprocess.run(command, env=environment, cwd=folder, check=True, capture_output=True)
        wall, after = time.monotonic() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
        with (Path(folder) / "run" / "metrics.csv").open() as file:
            rows = list(csv.DictReader(file))[1:]
    parts = {part: [float(row[f"seconds_{part}"]) for row in rows] for part in ("imagining", "updating")}
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {**parts, "wall": wall, "cpu": cpu}


def medians(runs: list[dict[str, Any]]) -> dict[str, float]:
    imagining = [value for run in runs for value in run["imagining"]]
    updating = [value for run in runs for value in run["updating"]]
    return {
        "imagining": statistics.median(imagining),
        "updating": statistics.median(updating),
        "iteration": statistics.median(map(sum, zip(imagining, updating, strict=True))),
        "cpu": statistics.median(run["cpu"] for run in runs),
    }


def page(found: dict[str, Any]) -> str:
    """The table of the results."""
    other = f", against {found['commit']}" if found["commit"] else ""
    lines = [
        f"`python benchmarks/tabletop_speed.py`{other}; {found['machine']}, {found['cores']} cores, torch "
        f"{found['torch']}, {found['rounds']} runs of each in turns.",
        "",
        "Medians of the iterations after the first (384 rollouts of 16 actions), wall seconds; CPU seconds of a run",
        f"of {ITERATIONS} iterations with its start.",
        "",
        "| version | way | imagining | updating | iteration | CPU | one process's imagining, iteration ÷ this |",
        "|---|---|---|---|---|---|---|",
    ]
    for version, ways in found["medians"].items():
        for way, row in ways.items():
            cells = " | ".join(f"{row[key]:.2f}" for key in ("imagining", "updating", "iteration", "cpu"))
            alone = ways.get("one thread")
            ratios = [f"{alone[key] / row[key]:.2f}" for key in ("imagining", "iteration")] if alone else ["–"]
            lines.append(f"| {version} | {way} | {cells} | {', '.join(ratios)} |")
    return "\n".join([*lines, ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--ways", nargs="+", choices=list(WAYS), default=list(WAYS), metavar="WAY", help=str([*WAYS]))
    parser.add_argument("--other", help="interpreter of an environment with another version")
    parser.add_argument("--commit", default="", help="what that version was built from")
    parser.add_argument("--checkpoint", type=Path, help="policy that all begin with")
    options = parser.parse_args()
    if bool(options.other) != bool(options.commit):
        parser.error("--other and --commit belong together: numbers say which version they are of.")
    plan = [("this", sys.executable, way) for way in options.ways]
    if options.other:
        plan += [(options.commit, options.other, way) for way in options.ways if way in OTHERS]
    runs: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for _ in range(options.rounds):
        for version, python, way in plan:
            run = measured(python, way, options.checkpoint)
            runs.setdefault(version, {}).setdefault(way, []).append(run)
            print(f"{version}, {way}: {run['wall']:.1f} s, {run['cpu']:.1f} s CPU", flush=True)
    found = {
        "machine": platform.machine(), "cores": os.cpu_count(), "torch": torch.__version__, "rounds": options.rounds,
        "commit": options.commit, "runs": runs,
        "medians": {version: {way: medians(rows) for way, rows in ways.items()} for version, ways in runs.items()},
    }  # fmt: skip
    write_json(RESULTS / "tabletop_speed.json", found)
    (RESULTS / "tabletop_speed.md").write_text(page(found))
    print(page(found))


if __name__ == "__main__":
    main()
