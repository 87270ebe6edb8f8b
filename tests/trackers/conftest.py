from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

# Whole runs are as small as those of the command line's tests.
sys.path.append(str(Path(__file__).parents[1] / "run"))
os.environ["MLFLOW_ALLOW_FILE_STORE"] = "true"  # MLflow's own switch for folders; its databases take seconds to make


@pytest.fixture
def _libraries() -> None:
    for name in ("wandb", "mlflow"):
        pytest.importorskip(name, reason=f"the extra gymnast[{name}] is not installed")
