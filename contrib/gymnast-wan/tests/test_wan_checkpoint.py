"""Each layout of weights: read, refused, and asked about."""

import json
import pickle
import shutil

import pytest
import torch
from gymnast_core.errors import CheckpointError, ConfigError
from safetensors.torch import load_file, save_file
from test_wan_world import actions, make_task
from wan_checkpoints import FACTS, rlinf_weights, write_rlinf, write_wan

from gymnast_wan.world_model import Wan


def load(**args: object) -> Wan:
    return Wan(Wan.Config(**{"dtype": "float32", "device": "cpu", **args}))


def look(world: Wan) -> torch.Tensor:
    return world.step(world.reset([make_task()]), actions(1, 4)).frames_BLVHWC


@pytest.fixture(scope="module")
def rlinf(world, tmp_path_factory):
    return write_rlinf(tmp_path_factory.mktemp("rlinf") / "weights", world)


def test_rlinfs_files_are_the_same_world(world, rlinf, checkpoint, tmp_path):
    wanted, vae = look(world), str(checkpoint / "vae")
    assert torch.equal(look(load(checkpoint=str(rlinf), vae=vae, **FACTS)), wanted)
    weights = rlinf_weights(world)
    saved = {"text_embedding.0.weight": torch.zeros(12, 3), "text_embedding.0.bias": torch.zeros(12), **weights}
    torch.save({f"pipe.dit.{name}": tensor for name, tensor in saved.items()}, tmp_path / "epoch-299.pt")
    assert torch.equal(look(load(checkpoint=str(tmp_path / "epoch-299.pt"), vae=vae, **FACTS)), wanted)


def test_what_rlinfs_files_leave_open_is_asked_for_all_at_once(rlinf, checkpoint):
    with pytest.raises(ConfigError) as raised:
        load(checkpoint=str(rlinf))
    asked = {name for name in (*FACTS, "vae", "dim", "action_dim") if f"{name} (" in str(raised.value)}
    assert asked == {*FACTS, "vae"}
    preset = Wan.presets()["rlinf-libero"]
    assert set(FACTS) - set(preset) == {"lead_in", "action_scale", "action_offset"}
    with pytest.raises(
        ConfigError, match=r"Not known of .*: lead_in .*action_scale .*action_offset .*vae .*rlinf-libero"
    ):
        load(checkpoint=str(rlinf), preset="rlinf-libero")


def test_wans_own_weights_begin_without_modulation_by_actions_and_can_be_fitted(checkpoint, tmp_path, caplog):
    base = write_wan(tmp_path / "wan")
    facts = {**FACTS, "action_dim": 7, "conditioning": "both", "vae": str(checkpoint / "vae")}
    facts.pop("heads")
    world = load(checkpoint=str(tmp_path / "wan"), **facts)
    assert "knows no actions" in caplog.text
    own = world.network.transformer.state_dict()
    for name, tensor in base.state_dict().items():
        assert ".text_embedder." in name or torch.equal(own[name], tensor)
    conditioner = world.network.transformer.condition_embedder
    assert not conditioner.frames(torch.ones(1, 28)).any() and conditioner.tokens(torch.ones(1, 7)).any()
    world.save(tmp_path / "fitted")
    stored = json.loads((tmp_path / "fitted" / "config.json").read_text())
    assert stored["autoencoder"]["vae"] == str(checkpoint / "vae")
    assert torch.equal(look(load(checkpoint=str(tmp_path / "fitted"))), look(world))
    write_wan(tmp_path / "picture", added_kv_proj_dim=12, image_dim=6)
    with pytest.raises(CheckpointError, match="takes a picture beside its latents"):
        load(checkpoint=str(tmp_path / "picture"), **facts)


REPOSITORY = "someone/wan-vae"


@pytest.fixture
def published(checkpoint, tmp_path, monkeypatch):
    """An autoencoder in the cache of the hub, of which the commit v1 alone was downloaded; its main branch was not."""
    import huggingface_hub

    cache = tmp_path / "cache"
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    repository, commit = cache / f"models--{REPOSITORY.replace('/', '--')}", "0" * 39 + "1"
    shutil.copytree(checkpoint / "vae", repository / "snapshots" / commit / "vae")
    (repository / "refs").mkdir()
    (repository / "refs" / "v1").write_text(commit)
    return REPOSITORY


def with_autoencoder(checkpoint, folder, **place):
    """A copy of the checkpoint whose config.json says where its autoencoder lies."""
    shutil.copytree(checkpoint, folder)
    shutil.rmtree(folder / "vae")
    config = json.loads((folder / "config.json").read_text())
    config["autoencoder"] |= place
    (folder / "config.json").write_text(json.dumps(config))
    return str(folder)


def test_a_revision_of_the_autoencoder_is_heeded_wherever_the_repository_is_named(checkpoint, published, tmp_path):
    named = with_autoencoder(checkpoint, tmp_path / "named", vae=published)
    wanted = look(load(checkpoint=str(checkpoint)))
    assert torch.equal(look(load(checkpoint=named, vae_revision="v1")), wanted)
    for args in ({}, {"vae_revision": "v2"}):
        with pytest.raises(CheckpointError, match=f"revision '{args.get('vae_revision', 'main')}' cannot be reached"):
            load(checkpoint=named, **args)
    pinned = with_autoencoder(checkpoint, tmp_path / "pinned", vae=published, vae_revision="v1")
    world = load(checkpoint=pinned)
    assert torch.equal(look(world), wanted) and torch.equal(look(load(checkpoint=pinned, vae=published)), wanted)
    with pytest.raises(CheckpointError, match="revision 'v2' cannot be reached"):
        load(checkpoint=pinned, vae_revision="v2")
    with pytest.raises(CheckpointError, match=r"'someone/other' .*revision 'main' cannot be reached"):
        load(checkpoint=pinned, vae="someone/other")
    load(checkpoint=pinned, vae=str(checkpoint / "vae")).save(tmp_path / "moved")
    stored = json.loads((tmp_path / "moved" / "config.json").read_text())["autoencoder"]
    assert stored["vae"] == str(checkpoint / "vae") and stored["vae_revision"] is None


@pytest.mark.parametrize(
    ("args", "lies"), [({}, "the checkpoint's own"), ({"vae": "random"}, "random"), ({"vae": None}, "the folder")]
)
def test_a_revision_of_no_repository_is_refused(args, lies, checkpoint):
    args = {"vae": str(checkpoint / "vae")} if args == {"vae": None} else args
    with pytest.raises(ConfigError, match=f"vae_revision is of a Hugging Face repository; the autoencoder is {lies}"):
        load(checkpoint=str(checkpoint), vae_revision="v1", **args)


class Opened:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def test_nothing_is_unpickled(checkpoint, tmp_path):
    for name in ("weights.pt", "weights.pth"):
        (tmp_path / name).write_bytes(pickle.dumps({"w": Opened(tmp_path / "opened")}))
        torch.save({"w": Opened(tmp_path / "opened")}, tmp_path / f"zipped-{name}")
        for file in (name, f"zipped-{name}"):
            with pytest.raises(CheckpointError, match=r"reading it would run code .*Ask for safetensors"):
                load(checkpoint=str(tmp_path / file), preset="tiny")
    assert not (tmp_path / "opened").exists()
    (tmp_path / "vae").mkdir()
    (tmp_path / "vae" / "Wan2.2_VAE.pth").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"Set world_model\.args\.vae to Wan-AI/Wan2\.2-TI2V-5B-Diffusers"):
        load(checkpoint=str(checkpoint), vae=str(tmp_path / "vae"))


def test_damaged_and_foreign_files_are_refused(checkpoint, rlinf, tmp_path):
    vae = str(checkpoint / "vae")
    partial = shutil.copytree(rlinf, tmp_path / "partial")
    (partial / "model-00001.safetensors").unlink()
    with pytest.raises(CheckpointError, match="do not fit the model: 9 tensors differ"):
        load(checkpoint=str(partial), vae=vae, action_dim=7, conditioning="both", **FACTS)
    (partial / "model-00002.safetensors").write_bytes(b"torn")
    with pytest.raises(CheckpointError, match="not a complete file"):
        load(checkpoint=str(partial), vae=vae, **FACTS)
    save_file({"w": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(CheckpointError, match="does not hold the weights of a Wan transformer"):
        load(checkpoint=str(tmp_path / "other.safetensors"), preset="tiny")
    damaged = shutil.copytree(checkpoint, tmp_path / "damaged")
    weights = load_file(damaged / "model.safetensors")
    weights["proj_out.bias"][0] = float("nan")
    save_file(weights, damaged / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"proj_out\.bias does not hold finite"):
        load(checkpoint=str(damaged))


def test_a_changed_config_is_found_out(checkpoint, tmp_path):
    folder = shutil.copytree(checkpoint, tmp_path / "changed")
    config = json.loads((folder / "config.json").read_text())
    for section, key, value, message in (
        ("architecture", "dim", 24, "says dim=24, its weights have 12"),
        ("conduct", "chunk", 4.5, "conduct: chunk|chunk is 4.5"),
        ("autoencoder", "latents", "0" * 64, "is another autoencoder"),
    ):
        changed = json.loads(json.dumps(config))
        changed[section][key] = value
        (folder / "config.json").write_text(json.dumps(changed))
        with pytest.raises(CheckpointError, match=message):
            load(checkpoint=str(folder))
    del config["conduct"]
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="conduct"):
        load(checkpoint=str(folder))
