"""The first picture shows things where they are, which Meta-World's own reset does not see to."""

from __future__ import annotations

import numpy as np
import pytest

mujoco = pytest.importorskip("mujoco", reason="needs MuJoCo: pip install gymnast-metaworld")
pytest.importorskip("metaworld", reason="needs Meta-World: pip install gymnast-metaworld")
from metaworld_parts import make  # noqa: E402


@pytest.mark.parametrize("task", ["window-open", "drawer-open", "lever-pull", "door-open"])
def test_the_first_picture_shows_where_the_simulator_then_finds_things(task: str) -> None:
    environment = make(task).unwrapped
    for seed in (5, 6):
        seen, _ = environment.reset(seed=seed)
        mujoco.mj_forward(environment._simulation.model, environment._simulation.data)
        again = environment._picture(environment._view)
        assert np.array_equal(seen["image"], again)
    environment.close()
