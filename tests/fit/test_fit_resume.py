"""A fit that is killed and resumed ends with the same checkpoint and log, bit for bit, as one never interrupted."""

from __future__ import annotations

import csv
import signal
from collections.abc import Callable
from pathlib import Path

import killing
import pytest
import toy
from launching import forkserver

Fit = Callable[..., Path]
Run = Callable[..., int | None]
SMALL = [
    "fit", "episodes=toy-episodes", "reward_model=toy", "validation=toy-episodes", "trainer={accelerator: cpu}",
    "fit={steps: 8, batch_size: 8, warmup_steps: 2, ema: 0.9, checkpoint_every: 2, log_every: 3, validate_every: 4}",
]  # fmt: skip


@pytest.fixture(scope="module")
def run() -> Run:
    """Runs `gymnast ARGUMENTS` in a process forked from a server that has imported everything."""
    context = forkserver()

    def start(arguments: list[str], moment: str | None = None) -> int | None:
        process = context.Process(target=killing.run, args=(arguments, moment))
        process.start()
        process.join(120)
        return process.exitcode

    return start


@pytest.fixture(scope="module")
def uninterrupted(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("uninterrupted") / "run"
    assert run([*SMALL, f"output={folder}"]) == 0
    return folder


def log(run: Path) -> list[dict[str, str]]:
    with (run / "metrics.csv").open() as file:
        return [{key: value for key, value in row.items() if key != "seconds"} for row in csv.DictReader(file)]


@pytest.mark.parametrize("moment", killing.MOMENTS)
def test_killed_and_resumed(moment: str, run: Run, uninterrupted: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    assert run([*SMALL, f"output={folder}"], moment) == -signal.SIGKILL
    assert not (folder / "checkpoint/model.safetensors").exists()
    assert run(["fit", "--resume", str(folder)]) == 0
    assert toy.same(folder, uninterrupted)
    assert log(folder) == log(uninterrupted)
    assert [row["step"] for row in log(folder)] == ["3", "4", "6", "8"]
    assert (folder / "report.html").exists()


def test_microbatches_and_workers_killed_and_resumed(run: Run, tmp_path: Path) -> None:
    whole, folder = tmp_path / "whole", tmp_path / "run"
    assert run([*SMALL, "fit.microbatches=4", f"output={whole}"]) == 0
    assert run([*SMALL, "fit.microbatches=4", "fit.workers=2", f"output={folder}"], "in a step") == -signal.SIGKILL
    assert not (folder / "checkpoint").exists() and (folder / "snapshots/step-000000002").exists() is False
    assert run(["fit", "--resume", str(folder)]) == 0
    assert toy.same(folder, whole) and log(folder) == log(whole)


def test_a_finished_fit_may_be_resumed(run: Run, uninterrupted: Path) -> None:
    before = (uninterrupted / "checkpoint/model.safetensors").read_bytes(), log(uninterrupted)
    assert run(["fit", "--resume", str(uninterrupted)]) == 0
    assert before == ((uninterrupted / "checkpoint/model.safetensors").read_bytes(), log(uninterrupted))


def test_training_time_goes_on_counting(fit: Fit) -> None:
    run = fit(steps=2, log_every=1)
    fit(steps=4, log_every=1, resume=run)
    with (run / "metrics.csv").open() as file:
        seconds = [float(row["seconds"]) for row in csv.DictReader(file)]
    assert seconds == sorted(seconds) and len(seconds) == 4
