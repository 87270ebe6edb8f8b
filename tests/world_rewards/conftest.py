from __future__ import annotations

from collections.abc import Iterator

import pytest
from noisy_worlds import Bright, Building, NoisyWorld

from gymnast_core.interfaces import Parts, RewardModel, WorldModel
from gymnast_core.plugins.registry import registries


@pytest.fixture(autouse=True)
def known() -> Iterator[None]:
    """The judge `bright` and the world `noisy` by name."""
    with Building().known(bright=Bright, noisy=NoisyWorld):
        yield


@pytest.fixture
def build():
    """A reward model by name, in a world."""

    def built(name: str, world: WorldModel | None = None, judge: dict | None = None, **args: object) -> RewardModel:
        around = {} if name == "verified" else {"judge": {"name": "bright", "args": judge or {}}}
        made = registries().reward_models.build(name, {**around, **args})
        made.attach(Parts(world_model=world, reward_model=made))
        return made

    return built
