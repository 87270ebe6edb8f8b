"""A tiny action-conditioned Wan with random weights, in a folder as a user has it."""

from collections.abc import Callable
from pathlib import Path

import pytest
from wan_checkpoints import write_checkpoint

from gymnast_wan.world_model import Wan


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("wan") / "tiny", rest_action=[0.0] * 6 + [-1.0])


@pytest.fixture(scope="session")
def build(checkpoint) -> Callable[..., Wan]:
    def make(**args: object) -> Wan:
        return Wan(Wan.Config(**{"checkpoint": str(checkpoint), "dtype": "float32", "device": "cpu", **args}))

    return make


@pytest.fixture(scope="session")
def world(build) -> Wan:
    return build()
