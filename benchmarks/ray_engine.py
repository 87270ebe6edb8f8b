"""Rollouts on Ray, on this machine: whether killed workers are noticed, what is left behind, and how fast two are.

    python benchmarks/ray_engine.py kills [--moments 20]     a worker is killed at a random moment of each run
    python benchmarks/ray_engine.py ends                     the training is stopped and killed; what of Ray goes on?
    python benchmarks/ray_engine.py speed [--pairs 3]        one worker against two, staleness 0 and 1 (quiet cores)

`kills` trains a dot on a line, so that 20 runs take minutes: each must make the groups of an undisturbed run without
Ray, none twice, and its policy bit for bit. `ends` and `speed` train the tabletop in its own world model,
speed with one thread a worker; medians of its pairs count. Results go to
benchmarks/results/ray_engine-PART.json.
"""

from __future__ import annotations

import argparse
import csv
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from safetensors.torch import load_file

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "ray_engine"))

import ray_parts

from gymnast_core.config import ComponentConfig
from gymnast_core.plugins.hooks import plugin_manager
from gymnast_core.runs.atomic import write_json
from gymnast_core.training.run import train

QUIET = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
COMMON = ("loop.imagine_batch_size=8", "evaluation.tasks=null", "check_saved=false", "trainer.accelerator=cpu")
RAY = ("engine=ray", "engine.args.workers=2", "engine.args.object_store_gib=0.2")
PATIENCE_SECONDS = 90.0
"""Ray's agents try for a minute to tell a killed training of its end."""


def processes() -> dict[int, tuple[int, str]]:
    """Parent and command of every process of this machine."""
    listed = subprocess.run(["ps", "-eo", "pid=,ppid=,args="], capture_output=True, text=True, check=True).stdout
    cells = (line.split(maxsplit=2) for line in listed.splitlines())
    return {int(pid): (int(parent), "".join(command)) for pid, parent, *command in cells}


def below(process: int) -> dict[int, str]:
    """Command of everything that a process has started, directly or not."""
    known, found, new = processes(), dict[int, str](), {process}
    while new:
        new = {pid for pid, (parent, _) in known.items() if parent in new}
        found |= {pid: known[pid][1] for pid in new}
    return found


class Groups:
    """Notes the labels of all groups that a run made, in order."""

    def __init__(self) -> None:
        self.labels: list[int] = []

    def gymnast_rollouts_imagined(self, event: Any) -> None:
        size = event.parts.optimizer.group_size
        self.labels += [rollout.group for rollout in event.rollouts[::size]]
        assert all(
            event.rollouts[i].group == event.rollouts[i // size * size].group for i in range(len(event.rollouts))
        )


@contextmanager
def noting() -> Iterator[Groups]:
    groups = Groups()
    plugin = SimpleNamespace(gymnast_rollouts_imagined=groups.gymnast_rollouts_imagined)
    plugin_manager().add(plugin, "groups")
    try:
        yield groups
    finally:
        plugin_manager().unregister(plugin)


def run(folder: Path, engine: ComponentConfig | None) -> tuple[list[int], dict[str, torch.Tensor], float]:
    """Train the dot on a line, from the same weights: the groups that were made, the policy, and the seconds."""
    torch.manual_seed(1)
    config = ray_parts.config(str(folder), engine, {"step_seconds": 0.25})
    began = time.monotonic()
    with noting() as groups:
        train(config)
    return groups.labels, load_file(folder / "policy" / "model.safetensors"), time.monotonic() - began


def kill_one(after: float, ended: threading.Event, chance: random.Random) -> str:
    """After some seconds, kill a worker, or the first one that there is; what it was doing."""
    if ended.wait(after):
        return "nothing: the run had ended"
    while not ended.is_set():
        workers = [(pid, said) for pid, said in below(os.getpid()).items() if said.startswith("ray::RolloutWorker")]
        if workers:
            pid, said = chance.choice(sorted(workers))
            os.kill(pid, signal.SIGKILL)
            return said
        time.sleep(0.05)
    return "nothing: the run had ended"


def kills(moments: int, seed: int) -> dict[str, Any]:
    """Whole trainings on one Ray, each with workers of its own, of which one dies."""
    import ray

    torch.set_num_threads(1)
    chance, rows = random.Random(seed), list[dict[str, Any]]()
    on_ray = ComponentConfig("ray", {"workers": 2})
    with tempfile.TemporaryDirectory() as place:
        ray_parts.install(Path(place))
        sys.path.insert(0, place)
        ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=10**8)
        expected, policy, _ = run(Path(place) / "local", None)
        _, _, seconds = run(Path(place) / "ray", on_ray)
        for number in range(moments):
            after, ended, killed = chance.uniform(0.0, seconds), threading.Event(), list[str]()
            killer = threading.Thread(target=lambda: killed.append(kill_one(after, ended, chance)))  # noqa: B023
            killer.start()
            try:
                labels, found, took = run(Path(place) / f"run-{number}", on_ray)
            finally:
                ended.set()
                killer.join()
            right = {
                "groups": labels == expected and len(set(labels)) == len(labels),
                "bits": found.keys() == policy.keys() and all(torch.equal(found[key], policy[key]) for key in policy),
            }
            rows.append({"after": after, "killed": killed[0], "seconds": took, **right})
            print(f"{number + 1}: {rows[-1]}", flush=True)
    ended_right = sum(row["groups"] and row["bits"] for row in rows)
    print(f"{ended_right} of {moments} runs ended with the right groups, none twice, and the same policy.")
    return {"runs": moments, "right": ended_right, "groups": len(expected), "rows": rows}


def ends() -> dict[str, Any]:
    found = {}
    command = [sys.executable, "-m", "gymnast_core.cli", "train", "tabletop", *COMMON, *RAY, "engine.args.staleness=1"]
    for how in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
        with tempfile.TemporaryDirectory() as place:
            training = subprocess.Popen([*command, f"output={place}/run"], env=QUIET, start_new_session=True)
            while not any("RolloutWorker.make" in said for said in below(training.pid).values()):
                assert training.poll() is None, "the training has ended by itself"
                time.sleep(0.1)
            started = below(training.pid)
            if how is signal.SIGINT:
                os.killpg(training.pid, how)  # as a terminal does
            else:
                training.send_signal(how)
            began = time.monotonic()
            training.wait()
            while (left := started.keys() & processes().keys()) and time.monotonic() - began < PATIENCE_SECONDS:
                time.sleep(0.2)
            found[how.name] = {"seconds": time.monotonic() - began, "left": [started[pid] for pid in left]}
            print(f"{how.name}: {found[how.name]}", flush=True)
    return found


def speed(pairs: int) -> dict[str, Any]:
    """Median seconds by part of the iterations after the first, in which workers are built."""
    variants = {
        "one worker": ("engine.args.workers=1",),
        "two workers": ("engine.args.workers=2",),
        "two workers, staleness 1": ("engine.args.workers=2", "engine.args.staleness=1"),
    }
    found: dict[str, list[dict[str, float]]] = {name: [] for name in variants}
    for _ in range(pairs):
        for name, overrides in variants.items():
            with tempfile.TemporaryDirectory() as place:
                command = [sys.executable, "-m", "gymnast_core.cli", "train", "tabletop", *COMMON, *RAY, *overrides]
                options = ["loop.iterations=4", "loop.max_draws=1", "loop.imagine_batch_size=32", f"output={place}/run"]
                subprocess.run([*command, *options], env=QUIET, check=True, stdout=subprocess.DEVNULL)
                with (Path(place) / "run" / "metrics.csv").open() as file:
                    rows = list(csv.DictReader(file))[1:]
            parts = ("seconds_imagining", "seconds_updating")
            found[name] += [{part: float(row[part]) for part in parts} for row in rows]
    table = {
        name: {
            "imagining": statistics.median(row["seconds_imagining"] for row in rows),
            "iteration": statistics.median(sum(row.values()) for row in rows),
        }
        for name, rows in found.items()
    }
    one = table["one worker"]
    for name, row in table.items():
        ratios = {part: one[part] / seconds for part, seconds in row.items()}
        print(f"{name}: {row['imagining']:.2f} s imagining ({ratios['imagining']:.2f}x), {row['iteration']:.2f} s an "
              f"iteration ({ratios['iteration']:.2f}x)")  # fmt: skip
    return {"cores": os.cpu_count(), "medians": table, "rows": found}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("kills", "ends", "speed"))
    parser.add_argument("--moments", type=int, default=20, help="kills: runs in which a worker dies")
    parser.add_argument("--pairs", type=int, default=3, help="speed: runs of each variant, in turn")
    parser.add_argument("--seed", type=int, default=0, help="kills: of the moments and of who dies")
    arguments = parser.parse_args()
    if arguments.part == "kills":
        result = kills(arguments.moments, arguments.seed)
    else:
        result = ends() if arguments.part == "ends" else speed(arguments.pairs)
    write_json(Path(f"benchmarks/results/ray_engine-{arguments.part}.json"), result)


if __name__ == "__main__":
    main()
