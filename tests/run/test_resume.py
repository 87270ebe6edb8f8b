"""A run that is killed and resumed ends with the same weights, bit for bit, as one that was never interrupted."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from launching import Launched
from small import CommandLine

SMALL = [
    "reward_model={name: random, args: {probability: 0.5}}",
    "loop.iterations=4",
    "loop.tasks_per_iteration=3",
    "loop.groups_per_update=2",
    "loop.max_draws=2",
    "loop.horizon=4",
    "tasks.args.count=8",
    "tasks.args.horizon=4",
    "evaluation.tasks.args.count=4",
    "evaluation.tasks.args.horizon=4",
    "evaluation.every=2",
    "evaluation.videos=0",
    "optimizer.args.group_size=3",
    "optimizer.args.minibatch_size=4",
    "checkpoint_every=1",
]


def start(*arguments: str) -> Launched:
    return Launched(["train", *arguments])


def final_weights(run: Path) -> bytes:
    return (run / "policy" / "model.safetensors").read_bytes()


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("uninterrupted") / "run"
    command = [sys.executable, "-m", "gymnast_core.cli", "train", "tabletop", *SMALL, f"output={run}"]
    assert subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"}).returncode == 0
    return run


def rows(run: Path) -> list[str]:
    return (run / "metrics.csv").read_text().splitlines()[1:]


KILL_WHEN: dict[str, Callable[[Path], bool]] = {
    "before the first iteration": lambda run: (run / "config.yaml").exists(),
    "after the first snapshot": lambda run: (run / "snapshots/step-000000001").exists(),
    "during an evaluation of the run": lambda run: (run / "metrics.csv").exists() and len(rows(run)) == 2,
    "while a snapshot is written": lambda run: any((run / "snapshots").glob(".step-00000000[3-4]*")),
    "after the last iteration": lambda run: (run / "snapshots/step-000000004").exists(),
}
"""Moments in the order in which a run comes to them."""


def killed(process: Launched, moment: Callable[[], bool]) -> int:
    """The exit status of a process that is killed at this moment, or that ended before it came."""
    deadline = time.monotonic() + 120
    while not moment() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    return process.wait()


def test_a_run_killed_again_and_again_ends_with_the_same_weights(uninterrupted: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    arguments = ["tabletop", *SMALL, f"output={run}"]
    ends = {}
    for name, reached in KILL_WHEN.items():
        ends[name] = killed(start(*arguments), partial(reached, run))
        arguments = ["--resume", str(run)]
    assert [ends[name] for name in list(KILL_WHEN)[:3]] == [-signal.SIGKILL] * 3, ends
    assert start(*arguments).wait() == 0
    assert final_weights(run) == final_weights(uninterrupted)
    # The record is whole too: every iteration once, none lost, none twice.
    assert [int(row.split(",")[0]) for row in rows(run)] == [1, 2, 3, 4]
    evaluations = {file.stem for file in (run / "evaluations").iterdir()}
    assert evaluations == {"before", "iteration-000002", "iteration-000004", "after"}


def test_training_changes_the_weights(uninterrupted: Path) -> None:
    from gymnast_core.config import RunConfig, load_config

    shipped = Path(load_config(RunConfig, "tabletop").policy.args["checkpoint"]) / "model.safetensors"
    assert final_weights(uninterrupted) != shipped.read_bytes()


def test_another_seed_gives_another_run(uninterrupted: Path, gymnast: CommandLine) -> None:
    """That the same seed gives the same run is what the killed run shows."""
    assert gymnast("train", "tabletop", *SMALL, "seed=1", "output=other").code == 0
    assert final_weights(Path("other")) != final_weights(uninterrupted)


def test_resuming_what_is_no_run_is_one_clear_error(tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "gymnast_core.cli", "train", "--resume", str(tmp_path)], capture_output=True, text=True
    )
    assert result.returncode == 2
    assert "is not a run folder" in result.stderr
    assert "Traceback" not in result.stderr


def test_ctrl_c_ends_with_130_and_says_how_to_go_on(tmp_path: Path) -> None:
    run = tmp_path / "run"
    arguments = ["train", "tabletop", *SMALL, "loop.iterations=500", "evaluation.every=0", f"output={run}"]
    process = Launched(arguments)
    deadline = time.monotonic() + 300
    while not (run / "snapshots/step-000000001").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 130
    assert "--resume" in errors
    assert "Traceback" not in errors
