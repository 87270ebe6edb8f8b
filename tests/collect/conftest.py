from __future__ import annotations

import sys
from pathlib import Path

import pytest
from collecting import Follower

from gymnast_core.plugins.compose import registries

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(autouse=True)
def _follower() -> None:
    registries().policies.register("follower", Follower)
