from __future__ import annotations

import sys
from pathlib import Path

import pytest
from small import CommandLine, Models, save_models

# Whole runs meet the servers that judges are tested with.
sys.path.append(str(Path(__file__).parents[1] / "vlm_reward"))


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    """Checkpoints that nobody may change."""
    return save_models(tmp_path_factory.mktemp("models"))


@pytest.fixture
def gymnast(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> CommandLine:
    """The command line with an empty working directory."""
    monkeypatch.chdir(tmp_path)
    return CommandLine(monkeypatch, capsys)
