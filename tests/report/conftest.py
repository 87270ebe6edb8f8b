"""One finished run for all tests of the package; each test that changes it gets its own copy."""

from __future__ import annotations

import shutil
from pathlib import Path

import fake_run
import pytest


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("finished") / "run"
    fake_run.make_run(path)
    return path


@pytest.fixture
def run_copy(finished_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished_run, tmp_path / "run"))
