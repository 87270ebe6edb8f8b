"""Whole rollouts of the original world model, image to frames, through the public interface."""

from __future__ import annotations

from typing import Any

import autoencoders
import golden
import pytest
import torch
from torch import Tensor

from gymnast_core.types import Task, one_camera

ATOL = {1.0: 2e-5, 3.0: 5e-5}
"""By guidance: the recordings' own sensitivity to rounding, with a margin."""


def replay(name: str, chunks: int | None = None, **changed: Any) -> tuple[Tensor, autoencoders.SpyCodec]:
    """The frames of a recording's actions, one chunk a step, from its image and its noise."""
    recorded, about = golden.tensors(name), golden.settings(name)
    model = autoencoders.world(name, **changed)
    spy = model.codec = autoencoders.SpyCodec(model.codec)
    tasks = [Task(str(i), "", one_camera(image[None])) for i, image in enumerate(recorded["image"])]
    posterior = recorded["vae_eps"].movedim(1, -1)[:, None]
    state = model.start(tasks, autoencoders.recorded_noise(posterior, *recorded["noise"]))
    actions = recorded["actions"].split(about["chunk_size"], dim=1)[:chunks]
    return torch.cat([model.step(state, chunk).frames_BLVHWC[:, :, 0] for chunk in actions], dim=1), spy


@pytest.mark.parametrize(
    "name", ["worldmodel_chunk1", "worldmodel_chunk4", "worldmodel_chunk1_cfg3", "worldmodel_pixel_chunk1"]
)
def test_rollouts_match_the_recordings(name: str) -> None:
    recorded, about = golden.tensors(name), golden.settings(name)
    frames, spy = replay(name)
    latents = torch.cat(spy.decoded, dim=1)
    golden.close(latents, recorded["latents"][:, 1:], ATOL[about["cfg"]])
    assert frames.shape == (2, 12, 64, 64, 3)
    if "frames" in recorded:
        assert (frames.int() - recorded["frames"].int()).abs().max() <= 1
        within = (recorded["frames"] > 0) & (recorded["frames"] < 255)
        assert within.float().mean() > 0.5


def test_every_new_frame_is_decoded_once_a_step_at_a_time() -> None:
    _, spy = replay("worldmodel_chunk4")
    assert [tuple(latents.shape[:2]) for latents in spy.decoded] == [(2, 4)] * 3


def test_the_first_image_is_encoded_as_recorded() -> None:
    recorded = golden.tensors("worldmodel_chunk1")
    noise = autoencoders.recorded_noise(recorded["vae_eps"].movedim(1, -1))
    latents = autoencoders.codec().encode(recorded["image"], noise)
    golden.close(latents, recorded["latents"][:, 0])


@pytest.mark.parametrize("name", ["worldmodel_chunk1", "worldmodel_pixel_chunk1"])
def test_bfloat16_stays_close_with_both_kinds_of_positions(name: str) -> None:
    """Rotary tables are built in float32; pixel positions in bfloat16 would be off by up to 1.3."""
    _, spy = replay(name, chunks=1, compute_dtype="bfloat16")
    error = spy.decoded[0] - golden.tensors(name)["latents"][:, 1:2]
    assert 0 < error.square().mean().sqrt() < 0.01
