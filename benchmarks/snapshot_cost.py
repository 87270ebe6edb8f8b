"""What snapshots cost a run, and how its records grow.

    python benchmarks/snapshot_cost.py [--width 1024] [--layers 12] [--iterations 4] [--output …/snapshot_cost.md]

A policy of OpenVLA-OFT's architecture learns in the tabletop's world, by LoRA (frozen base) and in full (AdamW: its
weights, gradients and moments are about half of the process's memory), a snapshot after every iteration: once as an
earlier edition wrote them (everything, while the run stands still), once as they are written now. Each way runs in a
process of its own. The first iteration is left out: it has the memory to find. Then small runs of three lengths say how
much each file grows in an iteration.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

from gymnast_core.config import RunConfig, load_config
from gymnast_core.runs.snapshot import save_snapshot
from gymnast_core.runs.writing import SnapshotWriter
from gymnast_core.training.record import RunRecord
from gymnast_core.training.run import train
from gymnast_core.training.unchanging import Unchanging
from gymnast_openvla_oft.architecture import Architecture, Tower
from gymnast_openvla_oft.policy import OpenVLAOFT

MIB = 2**20
SETTINGS = [
    "reward_model={name: random, args: {probability: 0.5}}", "evaluation.tasks=null", "check_saved=false",
    "loop.tasks_per_iteration=2", "loop.horizon=8", "optimizer.args.group_size=4", "optimizer.args.minibatch_size=8",
    "optimizer.args.epochs=1", "checkpoint_every=1",
]  # fmt: skip
LEARNS = {"LoRA on a frozen base": "{vision: frozen, lora_rank: 32}", "everything, AdamW": "{vision: full}"}
EDITIONS = ("before", "now")
GROWTH = ["loop.tasks_per_iteration=2", "loop.horizon=4", "optimizer.args.group_size=2", "optimizer.args.epochs=1"]
LENGTHS = (10, 20, 30)
EXPLAINED = """\
A snapshot after every iteration (`checkpoint_every=1`), medians of all iterations but the first. One iteration is
short: eight rollouts of two decisions. The share is what it takes longer: the seconds in which the run stands
still, and the processor's time of the thread that writes, shared out over the cores; of the shorter of the two
medians, since other work on the machine made iterations differ. By default snapshots are spaced so that the
share stays below 5 %."""
GROWN = """\
iterations add, by the first and by the second half. Equal halves are linear growth. Videos, which the page
holds, are kept of every fifth iteration and of the last; how large they are depends on what they show."""


def measured(edition: str, learns: str, checkpoint: Path, iterations: int, folder: Path) -> dict[str, Any]:
    """Run in this process; seconds an iteration, and what its snapshot takes."""
    standing: list[float] = []
    writing: list[float] = []
    store = SnapshotWriter._store

    def whole(self: RunRecord, loop: Any) -> None:
        loop._unchanging = Unchanging(loop.policy, None)  # leaves nothing out
        state = loop.state_dict_of_run()
        save_snapshot(self.folder / "snapshots", self._done, {**state, "record": self.state_dict()}, own={})

    snapshot = whole if edition == "before" else RunRecord.snapshot

    def timed(self: RunRecord, loop: Any) -> None:
        began = time.monotonic()
        snapshot(self, loop)
        standing.append(time.monotonic() - began)

    def watched(self: SnapshotWriter, *arguments: Any) -> None:
        store(self, *arguments)
        writing.append(time.thread_time())

    RunRecord.snapshot, SnapshotWriter._store = timed, watched  # type: ignore[assignment,method-assign]
    overrides = [
        *SETTINGS, f"policy.args.checkpoint={checkpoint}", f"policy.args.train={LEARNS[learns]}",
        f"loop.iterations={iterations}", f"output={folder}",
    ]  # fmt: skip
    train(load_config(RunConfig, "tabletop", overrides))
    with (folder / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))[1:]
    (newest,) = sorted((folder / "snapshots").iterdir())[-1:]
    weights = sum(path.stat().st_size for path in checkpoint.glob("*.safetensors"))
    return {
        "learns": learns,
        "edition": edition,
        "policy_mib": weights / MIB,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "snapshot_mib": sum(path.stat().st_size for path in newest.iterdir()) / MIB,
        "iteration_s": statistics.median(
            float(row["seconds_imagining"]) + float(row["seconds_updating"]) for row in rows
        ),
        "standing_s": statistics.median(standing[1:]),
        "processor_s": statistics.median(writing[1:]) if writing else 0.0,
    }


def apart(arguments: list[str]) -> dict[str, Any]:
    """`measured` in a process of its own, whose memory is nobody else's."""
    command = [sys.executable, __file__, "--one", *arguments]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def costs(options: argparse.Namespace, scratch: Path) -> list[dict[str, Any]]:
    """Every way to learn, before and now."""
    tower = Tower(patch_size=16, width=64, depth=2, heads=2)
    architecture = Architecture(
        dino=tower,
        siglip=tower,
        llm_width=options.width,
        llm_layers=options.layers,
        llm_intermediate=options.width * 11 // 4,
        action_low=[-0.02, -0.02],
        action_high=[0.02, 0.02],
    )
    config = OpenVLAOFT.Config(architecture=architecture, chunk_length=4, unnorm_key="tabletop")
    OpenVLAOFT(config).save(scratch / "policy")
    rows = []
    for learns in LEARNS:
        for edition in EDITIONS:
            with tempfile.TemporaryDirectory(dir=scratch) as run:
                row = apart([edition, learns, str(scratch / "policy"), str(options.iterations), str(Path(run) / "run")])
            rows.append(row)
            print(json.dumps(row), flush=True)
    return rows


def growth(scratch: Path) -> dict[str, list[float]]:
    """Bytes of each file or folder of a run, at each of the lengths."""
    sizes: list[dict[str, int]] = []
    for length in LENGTHS:
        folder = scratch / f"growth-{length}"
        overrides = [*SETTINGS, *GROWTH, f"loop.iterations={length}", f"output={folder}"]
        command = [sys.executable, "-m", "gymnast_core.cli", "train", "tabletop", *overrides]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        found: dict[str, int] = {}
        for path in (path for path in folder.rglob("*") if path.is_file()):
            name = path.relative_to(folder).parts[0]
            found[name] = found.get(name, 0) + path.stat().st_size
        sizes.append(found)
    return {name: [found.get(name, 0) for found in sizes] for name in sorted(sizes[-1])}


def report(rows: list[dict[str, Any]], grown: dict[str, list[float]], options: argparse.Namespace) -> str:
    cores = os.cpu_count() or 1
    lines = [
        "# What snapshots cost", "",
        f"`python benchmarks/snapshot_cost.py --width {options.width} --layers {options.layers}`; {cores} cores of "
        f"{platform.machine()}, torch {torch.__version__}, load {os.getloadavg()[0]:.1f} at the end.",
        EXPLAINED,
        "",
        "| learns | snapshots | policy | peak memory | a snapshot | an iteration | stands still | thread | share |",
        "|---|---|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    for row in rows:
        shortest = min(other["iteration_s"] for other in rows if other["learns"] == row["learns"])
        share = (row["standing_s"] + row["processor_s"] / cores) / shortest
        lines.append(
            f"| {row['learns']} | {row['edition']} | {row['policy_mib']:.0f} MiB | {row['peak_mib']:.0f} MiB "
            f"| {row['snapshot_mib']:.1f} MiB | {row['iteration_s']:.1f} s | {row['standing_s']:.2f} s "
            f"| {row['processor_s']:.2f} s | {100 * share:.1f} % |"
        )
    lines += [
        "", "## How a run's folder grows", "",
        f"From {LENGTHS[0]} to {LENGTHS[1]} to {LENGTHS[2]} iterations of a small run of the tabletop: what a thousand",
        GROWN,
        "",
        "| file or folder | at the end | first half | second half |", "|---|---|---|---|",
    ]  # fmt: skip
    for name, sizes in grown.items():
        halves = [(b - a) / (LENGTHS[1] - LENGTHS[0]) for a, b in pairwise(sizes)]
        lines.append(f"| `{name}` | {sizes[-1] / 1e3:.1f} kB | {halves[0]:.0f} kB | {halves[1]:.0f} kB |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--iterations", type=int, default=4)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "snapshot_cost.md")
    parser.add_argument("--one", nargs=5, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        edition, learns, checkpoint, iterations, folder = options.one
        print(json.dumps(measured(edition, learns, Path(checkpoint), int(iterations), Path(folder))))
        return
    with tempfile.TemporaryDirectory() as scratch:
        rows, grown = costs(options, Path(scratch)), growth(Path(scratch))
    options.output.write_text(report(rows, grown, options))
    print(options.output.read_text())


if __name__ == "__main__":
    main()
