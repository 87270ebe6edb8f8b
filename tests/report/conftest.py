"""One finished run for all tests of the package; each test that changes it gets its own copy."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import fake_run
import pytest

sys.path.append(str(Path(__file__).parents[1] / "run"))  # whole runs of untrained models

from small import CommandLine, Models, save_models


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    """Checkpoints that nobody may change."""
    return save_models(tmp_path_factory.mktemp("models"))


@pytest.fixture
def gymnast(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> CommandLine:
    """The command line with an empty working directory."""
    monkeypatch.chdir(tmp_path)
    return CommandLine(monkeypatch, capsys)


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("finished") / "run"
    fake_run.make_run(path)
    return path


@pytest.fixture
def run_copy(finished_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished_run, tmp_path / "run"))
