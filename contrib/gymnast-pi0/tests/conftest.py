"""A tiny PI0 with random weights, in a folder as a user has it."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from gymnast_core.types import Observation
from pi0_checkpoints import ACTION_DIM, STATE_DIM, write_checkpoint

from gymnast_pi0.policy import Pi0Policy


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("pi0"))


@pytest.fixture
def build(checkpoint) -> Callable[..., Pi0Policy]:
    def make(**args: object) -> Pi0Policy:
        return Pi0Policy(Pi0Policy.Config(**{"checkpoint": str(checkpoint), "chunk_length": 3, "images": 2, **args}))

    return make


@pytest.fixture
def observation() -> Observation:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (2, 1, 2, 20, 30, 3), generator=generator, dtype=torch.uint8)
    proprio = torch.randn(2, 1, STATE_DIM, generator=generator)
    assert ACTION_DIM != STATE_DIM
    instructions = ("push the red block", "push the blue block to the left")
    return Observation(images, instructions, ("front", "wrist"), proprio)
