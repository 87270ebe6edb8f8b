"""Episodes a second with one worker and with two, and the memory of all processes together.

    python benchmarks/environment_workers.py
    python benchmarks/environment_workers.py --label LIBERO --id gymnast_libero:libero/Goal-v0 --args '{"task": 3}' \
        --python ENVIRONMENT/bin/python --variables '{"MUJOCO_GL": "egl"}' --max-environments 4

64 episodes of random actions, at most `--max-environments` of them alive; all of those wait for each other after every
decision, which is of `--chunk` actions. Environments are made before the clock starts: that happens once. Memory is
what the kernel calls proportional set size, of this process and all below it, five times a second, from the first
environment to the last episode. The default is a stand-in that computes for 20 ms a step and holds 100 MB. Writes
benchmarks/results/environment_workers.{json,md}, beside what is there of other labels.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import numpy as np

from gymnast_core.reading import read_json
from gymnast_core.runs.progress import Progress
from gymnast_core.types import EnvironmentStart
from gymnast_environment.environments import Environments
from gymnast_environment.hosting import Hosting, cores
from gymnast_environment.view import View

RESULTS = Path(__file__).parent / "results" / "environment_workers.json"
MB = 2**20


def memory_of(root: int) -> tuple[int, int]:
    """Bytes of a process and of all below it."""
    children: dict[int, list[int]] = {}
    for folder in Path("/proc").iterdir():
        try:
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(folder.name))
        except (OSError, ValueError):
            continue
    below, waiting = [], list(children.get(root, ()))
    while waiting:
        pid = waiting.pop()
        below.append(pid)
        waiting += children.get(pid, ())
    return _pss(root), sum(map(_pss, below))


def _pss(pid: int) -> int:
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in text.splitlines() if line.startswith("Pss:")), 0)


class Peak:
    """The most memory so far."""

    def __init__(self) -> None:
        self.whole, self.workers = 0, 0

    @contextmanager
    def watched(self) -> Iterator[None]:
        over = threading.Event()
        thread = threading.Thread(target=self._watch, args=(over,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def _watch(self, over: threading.Event) -> None:
        while not over.wait(0.2):
            here, below = memory_of(os.getpid())
            self.whole, self.workers = max(self.whole, here + below), max(self.workers, below)


def play(
    environments: Environments, starts: Sequence[EnvironmentStart], steps: int, chunk: int, progress: Progress
) -> tuple[int, int]:
    """All episodes, in rounds of as many as there may be: how many there were, and how many were lost."""
    most = environments.most_episodes(starts) or len(starts)
    random, lost = np.random.default_rng(0), 0
    for first in range(0, len(starts), most):
        lives = environments.reset(starts[first : first + most])
        for done in range(0, steps, chunk):
            low, high = lives[0].about.low_A, lives[0].about.high_A
            assert low is not None and high is not None, "its actions are no vectors"
            shape = (len(lives), min(chunk, steps - done), len(low))
            actions = random.uniform(np.maximum(low, -1), np.minimum(high, 1), shape)
            environments.step(lives, list(actions.astype(np.float32)))
        lost += sum(live.error is not None for live in lives)
        for live in lives:
            live.release()
        progress.update(first + len(lives), {})
    return len(starts), lost


def measure(
    start: EnvironmentStart, hosting: Hosting, view: View, tasks: int, steps: int, chunk: int
) -> dict[str, float | int | None]:
    """One setting, from the first environment to the last episode."""
    environments, peak = Environments(view, hosting), Peak()
    starts = [EnvironmentStart(start.id, seed, start.options, start.args) for seed in range(tasks)]
    with peak.watched(), Progress(f"workers={hosting.workers}", tasks, unit="episode") as progress:
        began = time.monotonic()
        for live in environments.reset(starts[: hosting.max_environments]):
            live.release()
        made = time.monotonic()
        count, lost = play(environments, starts, steps, chunk, progress)
        seconds = time.monotonic() - made
    environments.close()
    return {
        "workers": hosting.workers, "max_environments": hosting.max_environments, "episodes": count, "lost": lost,
        "steps": steps, "chunk": chunk, "make_seconds": round(made - began, 2), "seconds": round(seconds, 2),
        "episodes_per_second": round(count / seconds, 3), "steps_per_second": round(count * steps / seconds, 2),
        "peak_mb": round(peak.whole / MB), "workers_peak_mb": round(peak.workers / MB),
    }  # fmt: skip


COLUMNS = (
    "workers", "alive at most", "episodes", "of a decision", "lost", "making", "episodes / s", "times", "steps / s",
    "peak memory", "of it workers",
)  # fmt: skip


def page(results: Mapping[str, Any]) -> str:
    """All labels' tables."""
    lines = ["# Environments in worker processes", "", "`python benchmarks/environment_workers.py`", ""]
    for label, found in results.items():
        told = (
            f"`{found['id']}` {json.dumps(found['args'])}, {found['cores']} cores, load {found['load']} at the start."
        )
        lines += [f"## {label}", "", told, "", _row(COLUMNS), _row(["---"] * len(COLUMNS))]
        slowest = found["rows"][0]["episodes_per_second"]
        lines += [_row(_cells(row, slowest)) for row in found["rows"]]
        lines.append("")
    return "\n".join(lines)


def _cells(row: Mapping[str, Any], slowest: float) -> list[str]:
    rate = row["episodes_per_second"]
    return [
        str(row["workers"]), str(row["max_environments"]), f"{row['episodes']} x {row['steps']} steps",
        str(row["chunk"]), str(row["lost"]),
        f"{row['make_seconds']} s", str(rate), f"{rate / slowest:.2f}", str(row["steps_per_second"]),
        f"{row['peak_mb']} MB", f"{row['workers_peak_mb']} MB",
    ]  # fmt: skip


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


@click.command()
@click.option("--label", default="stand-in", show_default=True, help="What the result is called.")
@click.option("--id", "environment_id", default="costly_environment:gymnast-benchmark/Costly-v0", show_default=True)
@click.option("--args", default="{}", help="Of gymnasium.make, JSON.")
@click.option("--options", default="{}", help="Of reset, JSON.")
@click.option("--view", default="{}", help="Of the section view, JSON.")
@click.option("--variables", default="{}", help="Environment variables of the workers, JSON.")
@click.option("--python", default=None, help="Interpreter of the environments.")
@click.option("--workers", default="1,2", show_default=True, help="Settings to measure.")
@click.option("--max-environments", default=8, show_default=True)
@click.option("--tasks", default=64, show_default=True)
@click.option("--steps", default=10, show_default=True, help="Actions an episode.")
@click.option("--chunk", default=1, show_default=True, help="Actions a decision.")
def main(
    label: str, environment_id: str, args: str, options: str, view: str, variables: str, python: str | None,
    workers: str, max_environments: int, tasks: int, steps: int, chunk: int,
) -> None:  # fmt: skip
    """Measure, and write the page."""
    load = [round(value, 1) for value in os.getloadavg()]
    start = EnvironmentStart(environment_id, 0, json.loads(options), json.loads(args))
    rows = []
    for count in map(int, workers.split(",")):
        hosting = Hosting(python, count, max_environments, json.loads(variables))
        rows.append(measure(start, hosting, View(**json.loads(view)), tasks, steps, chunk))
        click.echo(json.dumps(rows[-1]))
    results = read_json(RESULTS) if RESULTS.exists() else {}
    results[label] = {"id": environment_id, "args": start.args, "cores": cores(), "load": load[0], "rows": rows}
    RESULTS.write_text(json.dumps(results, indent=2) + "\n")
    RESULTS.with_suffix(".md").write_text(page(results))


if __name__ == "__main__":
    main()
