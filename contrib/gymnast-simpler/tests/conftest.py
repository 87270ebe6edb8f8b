"""Where ManiSkill is, and what stands in for its assets."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Iterator
from typing import Any

import gymnasium
import pytest

import gymnast_simpler  # noqa: F401


@pytest.fixture(scope="session")
def maniskill(tmp_path_factory: pytest.TempPathFactory) -> str:
    """ "stand-ins" or "official", the assets that tests run with; skips without ManiSkill.

    GYMNAST_SIMPLER_ASSETS=official takes those that are installed.
    """
    if importlib.util.find_spec("mani_skill") is None:
        pytest.skip("ManiSkill is not installed in this interpreter: pip install 'gymnast-simpler[environment]'")
    if os.environ.get("GYMNAST_SIMPLER_ASSETS") == "official":
        return "official"
    from stand_ins import write_stand_ins

    # Before ManiSkill is imported, which reads it then.
    os.environ["MS_ASSET_DIR"] = str(write_stand_ins(tmp_path_factory.mktemp("maniskill")))
    return "stand-ins"


@pytest.fixture(scope="module")
def make(maniskill: str) -> Iterator[Callable[[str], Any]]:
    """Makes environments of a task, one a task; skips where Vulkan does not work."""
    made: dict[str, Any] = {}

    def of(task: str) -> Any:
        if task not in made:
            try:
                made[task] = gymnasium.make("gymnast/Simpler-v0", task=task, horizon=12, disable_env_checker=True)
            except RuntimeError as error:
                if "render" not in str(error).lower() and "vk" not in str(error).lower():
                    raise
                pytest.skip(f"SAPIEN finds no Vulkan device (software rendering needs Mesa 24.3 or later): {error}")
        return made[task]

    yield of
    for environment in made.values():
        environment.close()
