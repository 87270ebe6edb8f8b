"""Loading checkpoints of every layout, and what a user reads when one does not load."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path

import autoencoders
import golden
import pytest
import torch
import worlds

from gymnast_core.errors import CheckpointError, ConfigError
from gymnast_worldgym import checkpoint as checkpoints
from gymnast_worldgym import published
from gymnast_worldgym.architecture import Architecture, Sampling, merge
from gymnast_worldgym.memory import memory_plan
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


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="shows mapped files on Linux only")
def test_a_published_file_is_mapped_not_read() -> None:
    saved = checkpoints.read(golden.ROOT / "ckpt_full_layout.pt")
    assert set(saved.weights) == set(dit("ckpt_full_layout.pt").state_dict())
    assert "ckpt_full_layout.pt" in Path("/proc/self/maps").read_text()


def published_network(name: str, **changed: int) -> DiT:
    """The network of a preset, its weights undefined."""
    advised = {**published.preset(name), **changed}
    return DiT(merge(Architecture, WorldGym.Config(), preset=advised).network(), None)


@pytest.mark.parametrize(
    ("name", "rope", "guidance"), [("openx-9-robots", "standard", 3.0), ("bridge-v2", "pixel", 1.0)]
)
def test_the_published_presets(name: str, rope: str, guidance: float) -> None:
    weights = published_network(name).state_dict()
    assert len(weights) == 300
    assert sum(tensor.numel() for tensor in weights.values()) == 607_928_384
    config = WorldGym.Config(preset=name)
    architecture = merge(Architecture, config, preset=published.preset(name))
    sampling = merge(Sampling, config, preset=published.preset(name))
    assert (architecture.rope, architecture.window, architecture.robot) == (rope, 20, "bridge")
    assert (sampling.guidance, sampling.denoising_steps) == (guidance, 10)
    known = {field.name for field in fields(WorldGym.Config)}
    assert published.preset(name).keys() <= known


def test_a_preset_multiplies_in_bfloat16_where_that_is_fast(monkeypatch: pytest.MonkeyPatch) -> None:
    small = dict(preset="bridge-v2", image_size=[64, 64], dim=32, layers=1, heads=2, window=4, device="cpu")
    small["vae"] = autoencoders.FOLDER

    def dtype(**chosen: str) -> torch.dtype:
        return WorldGym(WorldGym.Config(**small, **chosen)).network.blocks[0].s_block.ffwd[0].compute_dtype

    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    assert (dtype(), dtype(compute_dtype="float32")) == (torch.bfloat16, torch.float32)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    assert dtype() == torch.float32
    # On the way to a plan, as much as a GPU would hold.
    wide, narrow = (
        memory_plan(WorldGym.Config(**small, compute_dtype=name), 4)["world model's cache"]
        for name in ("float32", None)
    )
    assert wide == 2 * narrow


def test_a_preset_lies_below_the_users_values_and_the_checkpoints(tmp_path: Path) -> None:
    small = dict(preset="bridge-v2", image_size=[64, 64], dim=32, layers=1, heads=2, window=4, device="cpu")
    model = WorldGym(WorldGym.Config(**small, vae=autoencoders.FOLDER, guidance=2.0))
    assert (model.architecture.rope, model.sampling.guidance, model.training.action_dropout) == ("pixel", 2.0, 0.1)
    model.save(tmp_path / "world")
    again = WorldGym(WorldGym.Config(preset="openx-9-robots", checkpoint=str(tmp_path / "world")))
    assert again.architecture == model.architecture
    assert again.sampling == model.sampling
    with pytest.raises(ConfigError, match="Did you mean 'bridge-v2'"):
        WorldGym(WorldGym.Config(preset="bridge_v2"))


def test_published_weights_in_another_model_name_the_preset() -> None:
    weights = published_network("bridge-v2").state_dict()
    saved = checkpoints.Checkpoint(Path("bridge_v2_ckpt.pt"), weights, None)
    with pytest.raises(CheckpointError, match=r"bridge_v2_ckpt\.pt .* set preset to bridge-v2 or openx-9-robots"):
        checkpoints.load_into(dit("ckpt_bare.pt"), saved)


def test_a_wrong_architecture_names_the_tensors_and_shapes() -> None:
    saved = checkpoints.read(golden.ROOT / "ckpt_bare.pt")
    with pytest.raises(
        CheckpointError, match=r"x_proj\.weight: \(32, 4, 2, 2\) in the file, \(64, 4, 2, 2\) in the model"
    ):
        checkpoints.load_into(dit("ckpt_bare.pt", dim=64), saved)
    with pytest.raises(CheckpointError, match=r"Set dim=32 layers=1 patch_size=2\.$"):
        checkpoints.load_into(dit("ckpt_bare.pt", dim=64, num_layers=2, patch_size=4), saved)
    with pytest.raises(CheckpointError, match="not weights of a WorldGym transformer"):
        checkpoints.load_into(dit("ckpt_bare.pt"), checkpoints.Checkpoint(Path("x"), {"w": torch.zeros(3)}, None))
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
    with pytest.raises(CheckpointError, match=r"code\.pt: damaged, or not a file of plain tensors") as caught:
        checkpoints.read(tmp_path / "code.pt")
    assert "\n" not in str(caught.value)


def test_arguments_that_contradict_the_checkpoint_are_refused(tmp_path: Path) -> None:
    worlds.world().save(tmp_path / "world")
    checkpoint = str(tmp_path / "world")
    assert WorldGym(WorldGym.Config(checkpoint=checkpoint, dim=32, denoising_steps=4)).sampling.denoising_steps == 4
    with pytest.raises(ConfigError, match=r"dim is 64, but the weights in .* have 32"):
        WorldGym(WorldGym.Config(checkpoint=checkpoint, dim=64))
    with pytest.raises(ConfigError, match="heads is 4, but the checkpoint was trained with 2"):
        WorldGym(WorldGym.Config(checkpoint=checkpoint, heads=4))
    config = tmp_path / "world" / "config.json"
    config.write_text(json.dumps({"architecture": {"dimm": 3}, "sampling": {}}))
    with pytest.raises(CheckpointError, match=r"config\.json.*: No key 'dimm'. Did you mean 'dim'"):
        WorldGym(WorldGym.Config(checkpoint=checkpoint))
    config.write_text("{")
    with pytest.raises(CheckpointError, match=r"config\.json"):
        WorldGym(WorldGym.Config(checkpoint=checkpoint))


def test_weights_without_a_config_take_the_arguments(tmp_path: Path) -> None:
    model = worlds.world()
    torch.save({"model": model.module().state_dict(), "step": 1}, tmp_path / "bare.pt")
    facts = dict(rope="standard", prediction="x0", denoising_steps=1)
    again = WorldGym(WorldGym.Config(**worlds.SIZE, **facts, checkpoint=str(tmp_path / "bare.pt")))
    assert torch.equal(again.module().x_proj.weight, model.module().x_proj.weight)


def test_saving_replaces_the_older_checkpoint_and_leaves_nothing_behind(tmp_path: Path) -> None:
    model = worlds.world()
    model.save(tmp_path / "world")
    with torch.no_grad():
        model.module().x_proj.bias.fill_(3.0)
    model.save(tmp_path / "world")
    assert [p.name for p in tmp_path.iterdir()] == ["world"]
    assert checkpoints.read(tmp_path / "world").weights["x_proj.bias"].eq(3.0).all()
