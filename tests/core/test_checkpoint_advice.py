"""A checkpoint that is missing, or is another folder, is an error that says what to type next."""

from __future__ import annotations

import copy
import logging
from pathlib import Path
from typing import Any

import pytest
import torch

from gymnast_core.errors import CheckpointError
from gymnast_core.plugins.compose import registries
from gymnast_core.testing.making import make_tasks, observe
from gymnast_core.types import Episode, Rollout, Task

WORLD = {"dim": 16, "layers": 1, "heads": 2, "patch_size": 16, "action_dim": 3, "robot_action_dim": 2, "window": 4}
TOWER = {"patch_size": 16, "width": 16, "depth": 2, "heads": 2}
POLICY = {"chunk_length": 2, "unnorm_key": "t", "architecture": {
    "image_size": 32, "dino": TOWER, "siglip": TOWER, "llm_width": 32, "llm_layers": 1, "llm_heads": 2,
    "llm_intermediate": 32, "n_action_bins": 16, "tokenizer_corpus": ["push it"], "action_low": [-1.0, -1.0],
    "action_high": [1.0, 1.0],
}}  # fmt: skip
FITS = {
    "world_models": ("worldgym", "fit-tabletop-world-model"), "policies": ("openvla-oft", "fit-tabletop-policy"),
    "reward_models": ("success-classifier", "fit-tabletop-success-classifier"),
}  # fmt: skip


@pytest.mark.parametrize("kind", FITS)
def test_a_folder_without_a_checkpoint_says_where_one_comes_from(kind: str, tmp_path: Path) -> None:
    name, preset = FITS[kind]
    registry = getattr(registries(), kind)
    for missing in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(CheckpointError, match=rf"RUN/checkpoint, which `gymnast fit .*{preset}.*` writes"):
            registry.build(name, {"checkpoint": str(missing)})


@pytest.mark.parametrize("kind, inside", [(kind, "checkpoint") for kind in FITS] + [("policies", "policy")])
def test_the_folder_of_a_run_is_nearly_right(kind: str, inside: str, tmp_path: Path) -> None:
    (tmp_path / inside).mkdir()
    (tmp_path / inside / "config.json").write_text("{}")
    with pytest.raises(CheckpointError, match=f"folder of a run; did you mean {tmp_path / inside}"):
        getattr(registries(), kind).build(FITS[kind][0], {"checkpoint": str(tmp_path)})


def test_what_was_never_trained_says_so_once_when_it_acts(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    world = registries().world_models.build("worldgym", {**WORLD, "image_size": [32, 32], "prediction": "x0"})
    policy = registries().policies.build("openvla-oft", POLICY)
    assert "never trained" not in caplog.text  # it may be about to be
    tasks = make_tasks(1, image_size=32)
    for _ in range(2):
        world.step(world.reset(tasks), torch.zeros(1, 1, 2))
        policy.act(observe(tasks))
    said = [record.message for record in caplog.records if "never trained" in record.message]
    assert len(said) == 2
    assert said[0].startswith("worldgym has no checkpoint") and "world_model.args.checkpoint" in said[0]
    assert said[1].startswith("openvla-oft has no checkpoint") and "fit-tabletop-policy" in said[1]


@pytest.mark.parametrize("kind", FITS)
@pytest.mark.parametrize("is_loaded", [False, True])
def test_what_took_over_trained_weights_does_not(kind: str, is_loaded: bool, caplog: pytest.LogCaptureFixture) -> None:
    """A fit that goes on in its last validation has loaded its network and trains no more."""
    args: dict[str, Any] = {
        "world_models": {**WORLD, "image_size": [32, 32], "prediction": "x0"},
        "policies": POLICY,
        "reward_models": {"instructions": ["push it"], "image_size": 32, "width": 8},
    }[kind]
    component, trained = (getattr(registries(), kind).build(FITS[kind][0], args) for _ in range(2))
    if is_loaded:
        copy.deepcopy(component).module().load_state_dict(trained.module().state_dict())  # a copy of its own
        component.module().load_state_dict(trained.module().state_dict())
    frames = torch.zeros(3, 1, 32, 32, 3, dtype=torch.uint8)
    if kind == "policies":
        component.act(observe(make_tasks(1, image_size=32)))
    elif kind == "world_models":
        episode = Episode("e", "push it", frames, torch.zeros(2, 2))
        component.validate([episode], generator=torch.Generator().manual_seed(0))
    else:
        task, zeros = Task("t", "push it", frames[:1]), torch.zeros(2, 1, 1)
        component.score([Rollout(task, 0, frames, zeros, zeros, temperature=1.0)])
    assert ("never trained" in caplog.text) != is_loaded
