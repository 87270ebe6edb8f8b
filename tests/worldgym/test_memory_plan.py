"""The memory that WorldGym announces is the memory that it takes."""

from __future__ import annotations

import pytest
import torch

from gymnast_core.types import Task, one_camera
from gymnast_worldgym.world_model import WorldGym

SIZES = {"image_size": [16, 16], "patch_size": 8, "dim": 32, "layers": 2, "heads": 2, "action_dim": 3, "window": 4}


def config(**other: object) -> WorldGym.Config:
    return WorldGym.Config(**{**SIZES, "robot_action_dim": 2, "device": "cpu", **other})  # type: ignore[arg-type]


@pytest.mark.parametrize("guidance", [1.0, 2.0])
def test_weights_and_cache_are_exact(guidance: float) -> None:
    world = WorldGym(config(guidance=guidance))
    plan = WorldGym.memory_plan(world.config, 3)
    assert plan["world model"] == sum(p.nbytes for p in world.network.parameters())
    frames = torch.randint(0, 256, (3, 1, 16, 16, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    tasks = [Task(str(i), "push", one_camera(frames_THWC)) for i, frames_THWC in enumerate(frames)]
    state = world.reset(tasks, generator=torch.Generator().manual_seed(1))
    for _ in range(2):
        world.step(state, torch.zeros(3, 2, 2))
    assert plan["world model's cache"] == state.sampler._cache.nbytes
    assert "autoencoder" not in plan


def test_more_episodes_take_more_and_weights_do_not() -> None:
    few, many = (WorldGym.memory_plan(config(), episodes) for episodes in (2, 8))
    assert many["world model"] == few["world model"]
    assert many["world model's cache"] == 4 * few["world model's cache"]


def test_a_published_preset_needs_no_weights() -> None:
    """The autoencoder's share is Stable Diffusion's 83.7 M weights; the Bridge checkpoint is a DiT-L of about 0.6 B."""
    plan = WorldGym.memory_plan(WorldGym.Config(preset="bridge-v2", vae="stabilityai/some-vae"), 8)
    assert plan["autoencoder"] == 4 * 83_653_863
    assert 4 * 3e8 < plan["world model"] < 4 * 1e9
    assert plan["autoencoder at work"] == pytest.approx(1.5e9, rel=0.01)


def test_a_saved_model_is_read_from_its_config(tmp_path) -> None:  # type: ignore[no-untyped-def]
    world = WorldGym(config())
    world.save(tmp_path / "model")
    (tmp_path / "model/model.safetensors").unlink()
    saved = WorldGym.Config(checkpoint=str(tmp_path / "model"))
    assert WorldGym.memory_plan(saved, 4) == WorldGym.memory_plan(world.config, 4)
