"""A checkpoint that was saved here knows its files: one that was changed, or is another model's, is refused."""

from __future__ import annotations

import json
import logging
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from oft_cases import change_json, load_tiny, observation, small_config
from safetensors import safe_open

from gymnast_core.errors import CheckpointError
from gymnast_openvla_oft.checkpoint import save_checkpoint
from gymnast_openvla_oft.policy import OpenVLAOFT


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    OpenVLAOFT(small_config()).save(tmp_path / "saved")
    return tmp_path / "saved"


def load(directory: Path, **options: Any) -> OpenVLAOFT:
    return OpenVLAOFT(OpenVLAOFT.Config(checkpoint=str(directory), **options))


@pytest.mark.parametrize(
    ("file", "key", "value"),
    [
        ("config.json", "center_crop", True),
        ("config.json", "num_images_in_input", 2),
        ("config.json", "num_actions_chunk", 1),
        ("config.json", "tiny_timm_kwargs", None),
        ("preprocessor_config.json", "means", [[0.486, 0.456, 0.406], [0.5, 0.5, 0.5]]),
    ],
)
def test_a_changed_entry(saved: Path, file: str, key: str, value: Any) -> None:
    change_json(saved / file, **{key: value})
    with pytest.raises(CheckpointError, match=rf"{file}: {key} is .*, but the weights were saved with"):
        load(saved)


def test_heads_that_no_tensor_shows(saved: Path) -> None:
    towers = json.loads((saved / "config.json").read_text())["tiny_timm_kwargs"]
    towers[0]["num_heads"] = 4
    change_json(saved / "config.json", tiny_timm_kwargs=towers)
    with pytest.raises(CheckpointError, match="tiny_timm_kwargs"):
        load(saved)


def test_a_tokenizer_of_another_model(saved: Path, tmp_path: Path) -> None:
    made = small_config()
    corpus = [*made.architecture.tokenizer_corpus[::-1], "go"]
    OpenVLAOFT(replace(made, architecture=replace(made.architecture, tokenizer_corpus=corpus))).save(tmp_path / "other")
    shutil.copy(tmp_path / "other" / "tokenizer.json", saved)
    with pytest.raises(CheckpointError, match=r"tokenizer\.json is not the file that the weights were saved with"):
        load(saved)


def test_other_statistics_are_told(saved: Path, caplog: pytest.LogCaptureFixture) -> None:
    statistics = json.loads((saved / "dataset_statistics.json").read_text())
    statistics["scratch"]["action"] |= {name: [0.5, 0.5] for name in ("q99", "max")}
    (saved / "dataset_statistics.json").write_text(json.dumps(statistics))
    with caplog.at_level(logging.WARNING):
        assert load(saved).units.high.tolist() == [0.5, 0.5]
    assert "has other statistics than those that the weights were saved with" in caplog.text


def test_options_change_what_files_must_not(saved: Path) -> None:
    policy = load(saved, center_crop=True, chunk_length=1)
    assert policy.processor.images.center_crop and policy.chunk_length == 1
    policy.save(saved)
    assert load(saved).facts.chunk_length == 1


def test_every_shard_knows(words: Path, tmp_path: Path) -> None:
    policy = load_tiny(words)
    save_checkpoint(tmp_path, policy.description, policy.processor.prompts.tokenizer, policy.model, max_shard=500_000)
    for path in tmp_path.glob("*.safetensors"):
        with safe_open(path, framework="pt") as file:
            assert "gymnast_files" in file.metadata()
    change_json(tmp_path / "config.json", num_images_in_input=3)
    with pytest.raises(CheckpointError, match="num_images_in_input is 3, but the weights were saved with null"):
        load_tiny(tmp_path)


def test_weights_without_it_are_read_as_ever(words: Path) -> None:
    with safe_open(words / "model.safetensors", framework="pt") as file:
        assert "gymnast_files" not in (file.metadata() or {})
    assert torch.isfinite(load_tiny(words).act(observation(size=56), temperature=0.0).log_prob_BLD).all()
