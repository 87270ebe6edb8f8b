"""What a checkpoint does not say is asked for, all of it at once; with it, the recorded rollouts come out."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import autoencoders
import golden
import pytest
import torch
import worlds
from safetensors.torch import load_file, save_file

from gymnast_core.config.typed import typed
from gymnast_core.errors import CheckpointError, ConfigError
from gymnast_core.types import Task, one_camera
from gymnast_worldgym.world_model import WorldGym

ASKED = {"image_size", "heads", "window", "rope", "prediction", "denoising_steps", "codec", "vae"}
SIZES = {"channels", "patch_size", "dim", "layers", "action_dim"}
FACTS: dict[str, Any] = {"heads": 2, "window": 5, "image_size": [16, 16], "rope": "pixel", "prediction": "v"}
FACTS |= {"denoising_steps": 3}


def published_file(folder: Path) -> str:
    """The recorded network in the layout of the published files: whose `model` is not what is to be used."""
    weights = golden.tensors("ckpt_c16_ema")
    other = {name: torch.zeros_like(tensor) for name, tensor in weights.items()}
    torch.save({"model": other, "ema": weights, "optimizer": {}, "step": 580_000}, folder / "published.pt")
    return str(folder / "published.pt")


def of_recording(name: str) -> dict[str, Any]:
    """What the recording's manifest says of the facts that are asked for."""
    about = golden.settings(name)
    return {
        "image_size": [64, 64],
        "heads": about["config"]["num_heads"],
        "window": about["config"]["max_frames"],
        "rope": about["spatial_rope"],
        "prediction": "v",
        "denoising_steps": about["sampling_timesteps"],
        "codec": "autoencoder-kl",
        "vae": autoencoders.FOLDER,
    }


def mentioned(message: str) -> set[str]:
    return {name for name in ASKED | SIZES if f"{name} (" in message}


def small_file(folder: Path, **args: Any) -> str:
    model = worlds.world(**args)
    save_file({name: x.contiguous() for name, x in model.module().state_dict().items()}, folder / "small.safetensors")
    return str(folder / "small.safetensors")


@pytest.mark.parametrize("name", ["worldmodel_chunk1", "worldmodel_pixel_chunk1"])
def test_a_published_file_asks_for_its_facts_and_then_imagines_what_was_recorded(tmp_path: Path, name: str) -> None:
    file = published_file(tmp_path)
    with pytest.raises(ConfigError) as caught:
        WorldGym(WorldGym.Config(checkpoint=file, device="cpu"))
    message = str(caught.value)
    assert mentioned(message) == ASKED
    for part in (
        file,
        "dim=64, layers=2, channels=16, patch_size=2, action_dim=10",
        "16 in bridge-v2 and openx-9-robots",
    ):
        assert part in message
    assert "pixel in bridge-v2, standard in openx-9-robots" in message and "world_model.args.NAME=VALUE" in message
    assert "\n" not in message

    model = WorldGym(WorldGym.Config(checkpoint=file, device="cpu", **of_recording(name)))
    recorded = golden.tensors(name)
    spy = model.codec = autoencoders.SpyCodec(model.codec)
    tasks = [Task(str(i), "", one_camera(image[None])) for i, image in enumerate(recorded["image"])]
    noise = autoencoders.recorded_noise(recorded["vae_eps"].movedim(1, -1)[:, None], *recorded["noise"])
    state = model.start(tasks, noise)
    for action_BA in recorded["actions"].unbind(1):
        assert len(model.step(state, action_BA[:, None]).frames_BLVHWC) == len(tasks)
    golden.close(torch.cat(spy.decoded, dim=1), recorded["latents"][:, 1:], 2e-5)


@pytest.mark.parametrize("name", sorted(ASKED))
def test_each_fact_is_asked_for_by_itself(tmp_path: Path, name: str) -> None:
    facts = of_recording("worldmodel_chunk1")
    del facts[name]
    with pytest.raises(ConfigError) as caught:
        WorldGym(WorldGym.Config(checkpoint=published_file(tmp_path), device="cpu", **facts))
    assert mentioned(str(caught.value)) == {name}


def test_what_has_a_usual_value_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = small_file(tmp_path)
    with caplog.at_level(logging.WARNING):
        WorldGym(WorldGym.Config(checkpoint=file, device="cpu", **FACTS))
    (line,) = [record.getMessage() for record in caplog.records]
    for part in ("guidance=1.0", "stabilization_level=14", "codec=pixels", "action_scale=[1.0]", "robot=NAME", file):
        assert part in line
    caplog.clear()
    told = dict(codec="pixels", guidance=1.0, stabilization_level=14, action_alignment="same")
    scaled = dict(action_scale=[2.0], action_offset=[0.0], robot_action_dim=3)
    with caplog.at_level(logging.WARNING):
        WorldGym(WorldGym.Config(checkpoint=file, device="cpu", **FACTS, **told, **scaled))
    assert not caplog.records


def test_a_preset_states_the_facts_of_published_weights(tmp_path: Path) -> None:
    file = small_file(tmp_path)
    with pytest.raises(ConfigError, match=r"preset bridge-v2 is of weights with dim=1024, those in .* have 32"):
        WorldGym(WorldGym.Config(checkpoint=file, preset="bridge-v2"))


def test_sizes_are_read_from_the_tensors_and_compared_with_what_is_said(tmp_path: Path) -> None:
    file = small_file(tmp_path)
    model = WorldGym(WorldGym.Config(checkpoint=file, device="cpu", **FACTS))
    assert model.architecture.network() == worlds.world(rope="pixel").architecture.network()
    for name, wrong in {"dim": 64, "layers": 3, "patch_size": 4, "action_dim": 10, "channels": 4}.items():
        with pytest.raises(ConfigError, match=rf"{name} is {wrong}, but the weights in .*small\.safetensors have"):
            WorldGym(WorldGym.Config(checkpoint=file, device="cpu", **FACTS, **{name: wrong}))
    with pytest.raises(ConfigError, match="dim 32 must be a multiple"):
        WorldGym(WorldGym.Config(checkpoint=file, device="cpu", **{**FACTS, "heads": 3}))


def test_a_plan_asks_for_the_same_and_for_sizes_while_the_file_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        WorldGym.memory_plan(WorldGym.Config(checkpoint=published_file(tmp_path)), 8)
    assert mentioned(str(caught.value)) == ASKED
    with pytest.raises(ConfigError) as caught:
        WorldGym.memory_plan(WorldGym.Config(checkpoint=str(tmp_path / "missing.pt")), 8)
    assert mentioned(str(caught.value)) == ASKED | SIZES
    assert WorldGym.memory_plan(WorldGym.Config(checkpoint=str(tmp_path / "missing.pt"), preset="bridge-v2"), 8)
    file = small_file(tmp_path)
    planned = WorldGym.memory_plan(WorldGym.Config(checkpoint=file, **FACTS), 4)
    assert planned == WorldGym.memory_plan(WorldGym.Config(**worlds.SIZE, denoising_steps=3), 4)


def test_our_own_weights_say_what_they_are_wherever_they_lie(tmp_path: Path) -> None:
    model = worlds.world(rope="pixel", prediction="flow", denoising_steps=7, action_scale=[5.0])
    model.save(tmp_path / "world")
    (tmp_path / "world" / "model.safetensors").rename(tmp_path / "alone.safetensors")
    again = WorldGym(WorldGym.Config(checkpoint=str(tmp_path / "alone.safetensors"), device="cpu"))
    assert (again.architecture, again.sampling) == (model.architecture, model.sampling)


@pytest.mark.parametrize(
    ("name", "value"), [("heads", 4), ("window", 4), ("rope", "pixel"), ("prediction", "v"), ("action_scale", [2.0])]
)
def test_a_config_that_contradicts_its_weights_is_found_out(tmp_path: Path, name: str, value: Any) -> None:
    worlds.world().save(tmp_path / "world")
    file = tmp_path / "world" / "config.json"
    config = json.loads(file.read_text())
    config["architecture"][name] = value
    file.write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=rf"config\.json: architecture\.{name} is .*saved with .*copy the folder"):
        WorldGym(WorldGym.Config(checkpoint=str(tmp_path / "world")))


@pytest.mark.parametrize(
    ("section", "name", "value", "message"),
    [
        ("architecture", "dim", "32", r'dim is "32"; it must be a whole number'),
        ("architecture", "dim", 32.0, r"dim is 32\.0; it must be a whole number"),
        ("architecture", "dim", True, "dim is true"),
        ("architecture", "dim", None, "dim is null"),
        ("architecture", "dim", 64, r"architecture\.dim is 64, but its weights have|saved with 32"),
        ("architecture", "heads", ..., "heads is missing"),
        ("architecture", "image_size", [16], "image_size"),
        ("architecture", "image_size", 16, "image_size is 16; it must be a list"),
        ("architecture", "rope", 3, "rope is 3"),
        ("architecture", "rope", "spiral", "rope is \"spiral\"; it must be one of standard, pixel"),
        ("architecture", "action_scale", ["1"], "action_scale"),
        ("sampling", "denoising_steps", 0, "denoising_steps is 0; it must be at least 1"),
        ("sampling", "denoising_steps", ..., "denoising_steps is missing"),
        ("sampling", "streaming", 1, "streaming is 1; it must be true or false"),
        ("sampling", "horizont", 1, "No key 'horizont'. Did you mean 'horizon'"),
    ],
)  # fmt: skip
def test_a_config_is_checked_key_by_key(tmp_path: Path, section: str, name: str, value: Any, message: str) -> None:
    worlds.world().save(tmp_path / "world")
    file = tmp_path / "world" / "config.json"
    config = json.loads(file.read_text())
    config[section] = {key: kept for key, kept in {**config[section], name: value}.items() if kept is not ...}
    file.write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=message) as caught:
        WorldGym(WorldGym.Config(checkpoint=str(tmp_path / "world")))
    assert str(file) in str(caught.value)


def test_numbers_that_are_no_weights_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "small.safetensors"
    small_file(tmp_path)
    weights = load_file(file)
    save_file({**weights, "x_proj.bias": weights["x_proj.bias"] * float("nan")}, file)
    with pytest.raises(CheckpointError, match=r"x_proj\.bias holds NaN"):
        WorldGym(WorldGym.Config(checkpoint=str(file), device="cpu", **FACTS))
    save_file({**weights, "x_proj.bias": weights["x_proj.bias"].to(torch.int8)}, file)
    with pytest.raises(CheckpointError, match=r"x_proj\.bias holds torch\.int8"):
        WorldGym(WorldGym.Config(checkpoint=str(file), device="cpu", **FACTS))
    save_file({"something.else": torch.zeros(3)}, file)
    with pytest.raises(CheckpointError, match="not hold the weights of a WorldGym transformer"):
        WorldGym(WorldGym.Config(checkpoint=str(file)))


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"horizon": 5}, "horizon is 5, but a window of 5 frames holds at most 4 new ones"),
        ({"prediction": "flow", "stabilization_level": 14}, "stabilization_level has no effect with prediction: flow"),
        ({"clean_fraction": 1.0, "pure_noise_fraction": 0.5}, "with clean_fraction: 1 there are none"),
        ({"vae_batch": 4}, "vae_batch needs codec: autoencoder-kl"),
        ({"vae_revision": "x", "vae_subfolder": "vae"}, "vae_revision and vae_subfolder need codec: autoencoder-kl"),
        ({"latent_cache": "cache"}, "latent_cache needs codec"),
        (
            {"robot": "bridge", "action_dim": 10, "robot_action_dim": None, "action_scale": [1.0]},
            "already says how .* out action_scale",
        ),
        ({"pixel_weights": {"base": 0.0, "object": 0.0, "motion": 0.0}}, "no pixel would count"),
    ],
)
def test_options_without_effect_are_refused(args: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        WorldGym(typed(WorldGym.Config, {**worlds.SIZE, **args}))


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"vae_revision": "abc"}, "vae_revision is of a Hugging Face repository; vae is the folder"),
        ({"vae_subfolder": "vae"}, "has no folder 'vae'"),
        ({"pixel_weights": {}}, "pixel_weights needs codec: pixels"),
    ],
)
def test_options_without_effect_on_an_autoencoder_are_refused(args: dict[str, Any], message: str) -> None:
    facts = {**of_recording("worldmodel_chunk1"), "channels": 16, "patch_size": 2, "dim": 64}
    with pytest.raises(ConfigError, match=message):
        WorldGym(typed(WorldGym.Config, {**facts, **args}))


def test_a_chunk_that_the_window_cannot_hold_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    model = worlds.world()
    state = model.reset(worlds.tasks(1), generator=worlds.generator())
    caplog.clear()  # that it was never trained
    with caplog.at_level(logging.WARNING):
        model.step(state, torch.zeros(1, 4, 3))
        assert not caplog.records
        for _ in range(2):
            model.step(state, torch.zeros(1, 6, 3))
    (line,) = [record.getMessage() for record in caplog.records]
    assert "4 frames are denoised together" in line and "6 actions" in line


def test_guidance_of_a_model_that_never_sees_the_null_action_is_told(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        worlds.world(guidance=3.0, action_dropout=0.1)
        assert not caplog.records
        worlds.world(guidance=3.0)
    assert "guidance=3" in caplog.text and "action_dropout" in caplog.text


def test_an_action_that_looks_like_none_is_told(caplog: pytest.LogCaptureFixture) -> None:
    """Zeros and a last 1 stand for no action: they need a place that no action of the robot fills."""
    with caplog.at_level(logging.WARNING):
        worlds.world(robot_action_dim=2, action_dim=3, action_dropout=0.1)
        worlds.world(robot_action_dim=2, action_dim=2)
        assert not caplog.records
        worlds.world(robot_action_dim=2, action_dim=2, action_dropout=0.1)
    assert "fill all of action_dim=2" in caplog.text and "Set action_dim=3" in caplog.text


def test_ones_own_scaling_replaces_the_presets_robot() -> None:
    small = dict(image_size=[64, 64], dim=32, layers=1, heads=2, window=4, device="cpu", vae=autoencoders.FOLDER)
    own = WorldGym(WorldGym.Config(preset="bridge-v2", **small, robot_action_dim=2, action_scale=[3.0]))
    assert own.architecture.robot is None and own.action_dim == 2
    assert own.actions.to_model(torch.ones(2)).tolist() == [3.0, 3.0] + [0.0] * 8


def test_training_times_of_a_high_stabilization_level_lie_in_the_schedule() -> None:
    model = worlds.world(prediction="v", stabilization_level=900, clean_fraction=1.0)
    loss = model.training_loss(worlds.moving_dot(4), generator=worlds.generator())
    assert torch.isfinite(loss.total)
