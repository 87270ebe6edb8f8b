"""Loading checkpoints of every layout, and what a user reads when one does not load."""

from __future__ import annotations

import json
from pathlib import Path

import golden
import pytest
import torch
import worlds

from gymnast_core.errors import CheckpointError, ConfigError
from gymnast_worldgym import checkpoint as checkpoints
from gymnast_worldgym.model import DiT
from gymnast_worldgym.world_model import WorldGym


def dit(name: str, **changed: int) -> DiT:
    config = {**golden.MANIFEST[name]["config"], **changed}
    return DiT(golden.architecture(config), torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", ["ckpt_full_layout.pt", "ckpt_bare.pt", "ckpt_c4_ema.safetensors"])
def test_every_layout_loads(name: str) -> None:
    module, saved = dit(name), checkpoints.read(golden.ROOT / name)
    checkpoints.load_into(module, saved)
    assert torch.equal(module.x_proj.weight, saved.weights["x_proj.weight"])


def test_averaged_weights_are_preferred() -> None:
    content = torch.load(golden.ROOT / "ckpt_full_layout.pt", weights_only=True)
    weights = checkpoints.read(golden.ROOT / "ckpt_full_layout.pt").weights
    assert not torch.equal(content["ema"]["x_proj.weight"], content["model"]["x_proj.weight"])
    assert torch.equal(weights["x_proj.weight"], content["ema"]["x_proj.weight"])


def test_a_wrong_architecture_names_the_tensors_and_shapes() -> None:
    saved = checkpoints.read(golden.ROOT / "ckpt_bare.pt")
    with pytest.raises(
        CheckpointError, match=r"x_proj\.weight: \(32, 4, 2, 2\) in the file, \(64, 4, 2, 2\) in the model"
    ):
        checkpoints.load_into(dit("ckpt_bare.pt", dim=64), saved)
    with pytest.raises(CheckpointError, match=r"blocks\.1.*missing in the file"):
        checkpoints.load_into(dit("ckpt_bare.pt", num_layers=2), saved)


@pytest.mark.parametrize("name", ["ckpt_full_layout.pt", "ckpt_bare.pt", "ckpt_c4_ema.safetensors"])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.6])
def test_a_truncated_file_is_one_error(name: str, share: float, tmp_path: Path) -> None:
    content = (golden.ROOT / name).read_bytes()
    (tmp_path / name).write_bytes(content[: int(share * len(content))])
    with pytest.raises(CheckpointError, match=name):
        checkpoints.read(tmp_path / name)


def test_files_that_hold_no_weights(tmp_path: Path) -> None:
    torch.save({"step": 3}, tmp_path / "step.pt")
    (tmp_path / "text.pt").write_text("not a checkpoint")
    for path in (tmp_path / "step.pt", tmp_path / "text.pt", tmp_path / "missing.pt", tmp_path):
        with pytest.raises(CheckpointError, match=path.name):
            checkpoints.read(path)


def test_a_file_that_runs_code_is_refused(tmp_path: Path) -> None:
    torch.save({"model": Path("x")}, tmp_path / "code.pt")
    with pytest.raises(CheckpointError, match=r"code\.pt"):
        checkpoints.read(tmp_path / "code.pt")


def test_arguments_that_contradict_the_checkpoint_are_refused(tmp_path: Path) -> None:
    worlds.world().save(tmp_path / "world")
    checkpoint = str(tmp_path / "world")
    assert WorldGym(WorldGym.Config(checkpoint=checkpoint, dim=32, denoising_steps=4)).sampling.denoising_steps == 4
    with pytest.raises(ConfigError, match="dim is 64, but the checkpoint was trained with 32"):
        WorldGym(WorldGym.Config(checkpoint=checkpoint, dim=64))
    config = tmp_path / "world" / "config.json"
    config.write_text(json.dumps({"architecture": {"dimm": 3}}))
    with pytest.raises(ConfigError, match="Did you mean 'dim'"):
        WorldGym(WorldGym.Config(checkpoint=checkpoint))
    config.write_text("{")
    with pytest.raises(CheckpointError, match=r"config\.json"):
        WorldGym(WorldGym.Config(checkpoint=checkpoint))


def test_weights_without_a_config_take_the_arguments(tmp_path: Path) -> None:
    model = worlds.world()
    torch.save({"model": model.module().state_dict(), "step": 1}, tmp_path / "bare.pt")
    again = WorldGym(WorldGym.Config(**worlds.SIZE, checkpoint=str(tmp_path / "bare.pt")))
    assert torch.equal(again.module().x_proj.weight, model.module().x_proj.weight)


def test_saving_replaces_the_older_checkpoint_and_leaves_nothing_behind(tmp_path: Path) -> None:
    model = worlds.world()
    model.save(tmp_path / "world")
    with torch.no_grad():
        model.module().x_proj.bias.fill_(3.0)
    model.save(tmp_path / "world")
    assert [p.name for p in tmp_path.iterdir()] == ["world"]
    assert checkpoints.read(tmp_path / "world").weights["x_proj.bias"].eq(3.0).all()
