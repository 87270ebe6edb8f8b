from __future__ import annotations

import sys
from pathlib import Path

import pytest

# Runs are as small as those of the command line's tests; notebooks are part of the documentation.
sys.path.append(str(Path(__file__).parents[1] / "run"))
sys.path.append(str(Path(__file__).parents[2] / "docs"))


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
