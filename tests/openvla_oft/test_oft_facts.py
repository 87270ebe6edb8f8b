"""What no tensor shows is asked for or told: views, chunk length, proprioception, crops."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from oft_cases import add_component, change_json, film_towers, golden_component, observation, seeing, small_config

from gymnast_core.errors import CheckpointError, ConfigError, DataError
from gymnast_core.types import Needs
from gymnast_openvla_oft.openvla import OpenVLA
from gymnast_openvla_oft.policy import OpenVLAOFT

KEY = "libero_spatial_no_noops"


def config(directory: Path, **options: Any) -> OpenVLAOFT.Config:
    return OpenVLAOFT.Config(checkpoint=str(directory), **{"unnorm_key": KEY, **options})


def forget_proprio(directory: Path) -> None:
    """As the original OpenVLA-OFT leaves config.json, which the golden one was written with."""
    content = json.loads((directory / "config.json").read_text())
    del content["use_proprio"], content["proprio_dim"]
    (directory / "config.json").write_text(json.dumps(content))


def test_a_token_model_is_told_what_it_is_taken_for(words: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        policy = OpenVLAOFT(config(words))
    said = "images=1 chunk_length=5 center_crop=false preparation=none action_bounds=q99"
    assert said in caplog.text and str(words / "config.json") in caplog.text
    assert policy.needed == OpenVLAOFT.needs(config(words)) == Needs(1, actions=7)
    caplog.clear()
    said_all = {"images": 1, "chunk_length": 5, "center_crop": False, "preparation": "none", "action_bounds": "q99"}
    OpenVLAOFT(config(words, **said_all))
    assert not caplog.records


@pytest.mark.parametrize("component", ["action_head", "vision_backbone"])
def test_the_original_openvla_oft_is_asked_for(words: Path, component: str) -> None:
    """Its checkpoints were trained with one to three images, with and without proprioception."""
    weights = golden_component("libero_l1_action_head") if component == "action_head" else film_towers()
    add_component(words, component, weights)
    forget_proprio(words)
    given: dict[str, Any] = {}
    for name, value in {"images": 2, "chunk_length": 8, "proprio": False}.items():
        for build in (OpenVLAOFT, OpenVLAOFT.needs):
            with pytest.raises(ConfigError, match=rf"no file of it says .*{name}.* Set .*policy\.args\.{name}"):
                build(config(words, **given))
        given[name] = value
    policy = OpenVLAOFT(config(words, **given))
    assert policy.needed == OpenVLAOFT.needs(config(words, **given)) == Needs(2, actions=7)
    assert policy.chunk_length == 8


def test_a_projector_says_that_the_policy_reads_proprioception(words: Path) -> None:
    add_component(words, "proprio_projector", golden_component("libero_l1_proprio_projector"))
    assert OpenVLAOFT.needs(config(words)) == Needs(1, proprio=8, actions=7)
    assert OpenVLAOFT(config(words, proprio=True)).needed == Needs(1, proprio=8, actions=7)
    for build in (OpenVLAOFT, OpenVLAOFT.needs):
        with pytest.raises(ConfigError, match=r"proprio is false, but .* has a proprio_projector"):
            build(config(words, proprio=False))


def test_a_projector_that_is_lacking(words: Path) -> None:
    change_json(words / "config.json", use_proprio=True)
    for build in (OpenVLAOFT, OpenVLAOFT.needs):
        with pytest.raises(CheckpointError, match=r"use_proprio is true, but there is no proprio_projector"):
            build(config(words))


def test_parts_that_are_new_are_told(words: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A projector that was left behind would be a random one otherwise, without a word."""
    with caplog.at_level(logging.WARNING):
        OpenVLAOFT(config(words, proprio=True, film=True))
    assert "has no proprio_projector and no film: it starts from initial weights" in caplog.text


def test_extremes_alone_tell_the_number_of_readings(words: Path) -> None:
    """ALOHA's statistics; the quantiles may be left out."""
    add_component(words, "proprio_projector", golden_component("libero_l1_proprio_projector"))
    statistics = json.loads((words / "dataset_statistics.json").read_text())
    for part in ("action", "proprio"):
        del statistics[KEY][part]["q01"], statistics[KEY][part]["q99"]
    (words / "dataset_statistics.json").write_text(json.dumps(statistics))
    assert OpenVLAOFT.needs(config(words, action_bounds="minmax")) == Needs(1, proprio=8, actions=7)
    with pytest.raises(CheckpointError, match="lack q01, q99"):
        OpenVLAOFT.needs(config(words))


def test_a_fact_that_the_user_sets_otherwise_is_told(words: Path, caplog: pytest.LogCaptureFixture) -> None:
    change_json(words / "config.json", num_images_in_input=2, num_actions_chunk=8, center_crop=True)
    with caplog.at_level(logging.WARNING):
        policy = OpenVLAOFT(config(words))
    assert (policy.needed, policy.chunk_length, policy.processor.images.center_crop) == (Needs(2, actions=7), 8, True)
    assert "images" not in caplog.text.partition("taken for one with")[2]
    caplog.clear()
    OpenVLAOFT(config(words, images=1, center_crop=False))
    assert "says images=2; the option is used instead" in caplog.text
    assert "says center_crop=true; the option is used instead" in caplog.text


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"num_images_in_input": 0}, "num_images_in_input is 0; it must be at least 1 and at most 16"),
        ({"num_images_in_input": "2"}, "num_images_in_input is .2.; it must be a whole number"),
        ({"num_images_in_input": True}, "num_images_in_input is true"),
        ({"num_images_in_input": 3, "cameras": ["a", "b"]}, "is 3, but cameras names 2: a, b"),
        ({"cameras": "front"}, "cameras is .front.; it must be a list"),
        ({"cameras": ["a", "a"]}, "each camera must be named once"),
        ({"num_actions_chunk": 1e30}, "num_actions_chunk"),
        ({"num_actions_chunk": -5}, "num_actions_chunk is -5"),
        ({"center_crop": 1}, "center_crop is 1; it must be true or false"),
        ({"preparation": "rotated"}, "preparation is .rotated.; it must be one of none, jpeg-lanczos, libero"),
        ({"action_bounds": None, "image_sizes": [56]}, "image_sizes is .56.; it must have 2 entries"),
        ({"image_resize_strategy": "letterbox"}, "image_resize_strategy is 'resize-naive', but that of config.json is"),
        ({"use_fused_vision_backbone": False}, "two vision towers are named"),
        ({"timm_override_act_layers": ["quick_gelu", None]}, "names activations"),
        ({"llm_max_length": 50}, "llm_max_length leaves 50 positions"),
        ({"text_config": []}, "text_config is .*; it must be an object"),
    ],
)
def test_a_config_that_cannot_be_right(words: Path, changed: dict[str, Any], said: str) -> None:
    change_json(words / "config.json", **changed)
    with pytest.raises(CheckpointError, match=said) as caught:
        OpenVLAOFT(config(words))
    assert str(words) in str(caught.value)


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("hidden_size", "64", "must be a whole number"),
        ("hidden_size", True, "must be a whole number"),
        ("hidden_size", None, "must be a whole number"),
        ("num_hidden_layers", 10**9, "at most 200"),
        ("num_attention_heads", 3, "does not divide"),
        ("num_attention_heads", 2, "does not divide 2 heads"),
        ("num_key_value_heads", None, "config.json describes|is stated without"),
        ("head_dim", 32, "head_dim is 32, but 4 heads share"),
        ("hidden_act", "gelu", "hidden_act is 'gelu'"),
        ("tie_word_embeddings", True, "tie_word_embeddings is True"),
        ("rope_scaling", {"type": "linear", "factor": 2}, "rope_scaling"),
        ("rope_theta", "1e4", "rope_theta"),
        ("rms_norm_eps", -1, "rms_norm_eps"),
        ("attention_bias", 0, "attention_bias is 0"),
        ("pad_token_id", 447, "pad_token_id is 448, but text_config: pad_token_id is 447"),
    ],
)
def test_a_language_model_that_cannot_be_right(words: Path, key: str, value: Any, said: str) -> None:
    text = json.loads((words / "config.json").read_text())["text_config"]
    change_json(words / "config.json", text_config={**text, key: value})
    if key == "num_key_value_heads":
        del text[key]
        change_json(words / "config.json", text_config=text)
    with pytest.raises(CheckpointError, match=said):
        OpenVLAOFT(config(words))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"q01": ["0"] * 7}, "q01 is .*; it must be a number"),
        ({"q01": [True] * 7}, "q01 is .*; it must be a number"),
        ({"q01": None}, "q01 is null; it must be a list"),
        ({"q01": [0.0] * 6}, "one number a dimension each; they have .*q01 6"),
        ({"q01": [1e30] + [0.0] * 6}, "at least -1000000 and at most 1000000"),
        ({"q99": [-5.0] * 7}, r"q01\[0\] is .*, above q99\[0\], which is -5"),
        ({"q01": []}, "q01 0"),
        ({"mask": [1] * 7}, "mask is .*; it must be true or false"),
        ({"mask": None}, "mask is null"),
        ({"std": [-1.0] * 7}, "std has a negative number"),
        ({"mean": [99.0] * 7}, r"mean\[0\] is 99, above max\[0\]"),
    ],
)
def test_statistics_that_cannot_be_right(words: Path, change: dict[str, Any], said: str) -> None:
    statistics = json.loads((words / "dataset_statistics.json").read_text())
    statistics[KEY]["action"] |= change
    (words / "dataset_statistics.json").write_text(json.dumps(statistics))
    with pytest.raises(CheckpointError, match=said) as caught:
        OpenVLAOFT(config(words))
    assert f"dataset_statistics.json: {KEY}: action" in str(caught.value)


def test_statistics_without_a_mask_are_told(words: Path, caplog: pytest.LogCaptureFixture) -> None:
    statistics = json.loads((words / "dataset_statistics.json").read_text())
    del statistics[KEY]["action"]["mask"]
    (words / "dataset_statistics.json").write_text(json.dumps(statistics))
    with caplog.at_level(logging.WARNING):
        policy = OpenVLAOFT(config(words))
    assert policy.units.mask.all() and f"{KEY}: action has no mask" in caplog.text


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"means": [[0.0] * 3, [0.5] * 3]}, r"means\[0\] is .*, but this vision tower was trained with"),
        ({"stds": [[0.228515625, 0.2236328125, 0.224609375]] * 2}, r"stds\[1\]"),
        ({"stds": [[0.0] * 3] * 2}, r"stds\[0\]"),
        ({"means": [[0.5] * 3]}, "means must have one list"),
        ({"interpolations": ["bilinear", "bicubic"]}, "interpolations"),
        ({"input_sizes": [[3, 56, 56]]}, "input_sizes"),
        ({"input_sizes": [[3, 56, 56], [3, 28, 28]]}, "input_sizes"),
        ({"input_sizes": 56}, "input_sizes is 56"),
    ],
)
def test_a_preprocessor_of_another_model(words: Path, changed: dict[str, Any], said: str) -> None:
    change_json(words / "preprocessor_config.json", **changed)
    with pytest.raises(CheckpointError, match=said) as caught:
        OpenVLAOFT(config(words))
    assert "preprocessor_config.json" in str(caught.value)


def test_other_files_are_read_as_far_as_they_contradict(words: Path) -> None:
    change_json(words / "generation_config.json", eos_token_id=7)
    with pytest.raises(CheckpointError, match=r"generation_config\.json: eos_token_id is 7"):
        OpenVLAOFT(config(words))
    change_json(words / "generation_config.json", eos_token_id=2)
    (words / "tokenizer_config.json").write_text("[]")
    with pytest.raises(CheckpointError, match=r"tokenizer_config\.json must hold an object"):
        OpenVLAOFT(config(words))


def test_two_views_are_never_one(words: Path) -> None:
    """A policy that remembers two images refuses one image, whatever the cameras are called."""
    change_json(words / "config.json", num_images_in_input=2)
    policy = OpenVLAOFT(config(words))
    with pytest.raises(DataError, match=r"shows 1 cameras .* sees 2"):
        policy.act(observation(size=56), temperature=0.0)
    both = observation(size=56, views=2)
    assert policy.act(both, temperature=0.0).actions_BLA.isfinite().all()


def test_from_scratch_nothing_is_assumed_of_a_checkpoint(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        policy = OpenVLAOFT(small_config())
    assert not caplog.records and policy.needed == Needs(1, actions=2)
    images = torch.zeros(1, 1, 16, 16, 3, dtype=torch.uint8)
    assert policy.act(seeing(images, ("open it",)), temperature=0.0).actions_BLA.shape == (1, 2, 2)


@pytest.mark.parametrize(
    ("kind", "options", "told"),
    [(OpenVLAOFT, {}, 1), (OpenVLA, {}, 1), (OpenVLAOFT, {"proprio": True}, 0), (OpenVLAOFT, {"proprio": False}, 0)],
)
def test_readings_that_nobody_reads_are_told(
    kind: type[Any], options: dict[str, Any], told: int, caplog: pytest.LogCaptureFixture
) -> None:
    architecture = replace(small_config().architecture, proprio_low=[-1.0], proprio_high=[1.0])
    policy = kind(kind.Config(architecture=architecture, **options))
    assert caplog.text.count("which reads no proprioception. Set policy.args.proprio=true") == told
    assert policy.needed.proprio == (1 if options.get("proprio") else None)
    caplog.clear()
    kind(kind.Config(architecture=small_config().architecture))
    assert "proprioception" not in caplog.text
