"""Folders that lose the right to be written: one error each, and the run goes on when it is given back."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from rights import lock_up, obeying_permissions, unlock, why_not_obeyed
from small import CommandLine, Models
from test_run_folder import arguments

TWO = ["loop.iterations=2", "checkpoint_every=1"]


@pytest.fixture
def gymnast_obeys(gymnast: CommandLine, tmp_path: Path) -> CommandLine:
    """The command line, where permissions hold."""
    if reason := why_not_obeyed(tmp_path):
        pytest.skip(reason)
    return gymnast


@pytest.fixture(scope="module")
def done() -> list[Path]:
    """The folder of a training of one iteration, once it was made."""
    return []


@pytest.fixture
def run(gymnast_obeys: CommandLine, models: Models, done: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of that folder."""
    if not done:
        folder = tmp_path_factory.mktemp("locked") / "run"
        assert gymnast_obeys("train", *arguments(models, f"output={folder}")).code == 0
        done.append(folder)
    shutil.copytree(done[0], "runs/run")
    return Path("runs/run")


def refused(gymnast: CommandLine, *words: str) -> str:
    with obeying_permissions():
        error = gymnast.error(*words)
    assert "Permission denied. Let this user write" in error
    assert len(error.splitlines()) == 1
    return error


def test_where_a_run_is_to_be_made(gymnast_obeys: CommandLine, models: Models) -> None:
    Path("runs").mkdir()
    lock_up(Path("runs"), deep=False, files=False)
    try:
        error = refused(gymnast_obeys, "train", *arguments(models, "output=runs/run"))
    finally:
        unlock(Path("runs"))
    assert error.startswith("Error: runs/run cannot be written: ")
    assert not list(Path("runs").iterdir())


@pytest.mark.parametrize(
    ("place", "said"),
    [
        (".", "Error: runs/run cannot be written (runs/run/.lock): "),
        ("snapshots", "Error: runs/run/snapshots/step-000000002 cannot be written: "),
        ("tensorboard", "Error: runs/run/tensorboard/events.out"),
        ("videos", "Error: runs/run/videos/iteration-000002-imagined-01.mp4 cannot be written: "),
        ("policy", "Error: runs/run/policy cannot be written (runs/run/policy/"),
    ],
)
def test_of_a_run_that_goes_on(gymnast_obeys: CommandLine, run: Path, place: str, said: str) -> None:
    lock_up(run / place, deep=True, files=True)
    try:
        assert refused(gymnast_obeys, "train", "--resume", str(run), *TWO).startswith(said)
    finally:
        unlock(run)
    assert gymnast_obeys("train", "--resume", str(run), *TWO).code == 0
    assert [line.split(",")[0] for line in (run / "metrics.csv").read_text().splitlines()] == ["step", "1", "2"]
