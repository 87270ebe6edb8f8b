"""Checkpoint directories as they are published, and one clear error for each defect."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from oft_cases import (
    WORDS,
    add_component,
    change_json,
    copy_checkpoint,
    factors,
    film_towers,
    golden_component,
    greedy,
    load_tiny,
    observation,
    tiny_weights,
)
from safetensors.torch import save_file
from tokenizers import Tokenizer, processors

from gymnast_core.errors import CheckpointError, ConfigError
from gymnast_openvla_oft.adapters import merge
from gymnast_openvla_oft.components import read_components


class TestDirectories:
    def test_statistics_of_the_file_win(self, words: Path) -> None:
        policy = load_tiny(words)
        assert "bridge_orig" not in policy.description.norm_stats
        (words / "dataset_statistics.json").unlink()
        assert load_tiny(words, "bridge_orig").unnorm_key == "bridge_orig"

    def test_shards_equal_the_single_file(self, words: Path, tmp_path: Path) -> None:
        sharded = copy_checkpoint(tmp_path / "sharded", "tiny_ckpt_sharded")
        WORDS.save(str(sharded / "tokenizer.json"))
        ours, theirs = (load_tiny(path, dtype="bfloat16").model.state_dict() for path in (sharded, words))
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)

    def test_old_checkpoints_rotary_buffers_are_ignored(self, words: Path) -> None:
        old = tiny_weights() | {"language_model.model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(8)}
        save_file(old, words / "model.safetensors")
        weights = load_tiny(words).state_dict()
        assert weights
        assert not [name for name in weights if "rotary_emb" in name]

    @pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json", "model.safetensors"])
    def test_missing_files(self, words: Path, name: str) -> None:
        (words / name).unlink()
        with pytest.raises(CheckpointError, match=f"holds (no|neither) {name}"):
            load_tiny(words)

    def test_missing_shard(self, tmp_path: Path) -> None:
        sharded = copy_checkpoint(tmp_path / "sharded", "tiny_ckpt_sharded")
        WORDS.save(str(sharded / "tokenizer.json"))
        (sharded / "model-00002-of-00002.safetensors").unlink()
        with pytest.raises(CheckpointError, match=r"lacks 1 of 2 shards .* model-00002-of-00002.safetensors"):
            load_tiny(sharded)

    def test_truncated_weights(self, words: Path) -> None:
        os.truncate(words / "model.safetensors", 100_000)
        with pytest.raises(CheckpointError, match="truncated or corrupt"):
            load_tiny(words)

    def test_weights_of_another_dtype(self, words: Path) -> None:
        quantised = tiny_weights()
        quantised["projector.fc1.weight"] = quantised["projector.fc1.weight"].to(torch.int8)
        save_file(quantised, words / "model.safetensors")
        with pytest.raises(CheckpointError, match=r"projector.fc1.weight in .* is int8: quantised weights"):
            load_tiny(words)

    def test_weights_of_another_shape(self, words: Path) -> None:
        config = words / "config.json"
        config.write_text(config.read_text().replace('"hidden_size": 64', '"hidden_size": 32'))
        with pytest.raises(CheckpointError, match=r"but config\.json describes"):
            load_tiny(words)

    def test_weights_of_another_depth(self, words: Path) -> None:
        config = words / "config.json"
        config.write_text(config.read_text().replace('"num_hidden_layers": 2', '"num_hidden_layers": 3'))
        with pytest.raises(CheckpointError, match=r"lack language_model\.model\.layers\.2"):
            load_tiny(words)

    def test_image_sizes_that_contradict(self, words: Path) -> None:
        change_json(words / "preprocessor_config.json", input_sizes=[[3, 224, 224]] * 2)
        with pytest.raises(CheckpointError, match=r"images of 224x224 pixels, but .* for 56x56"):
            load_tiny(words)

    def test_unknown_dataset(self, words: Path) -> None:
        with pytest.raises(
            ConfigError, match=r"Did you mean 'bridge_dataset'.* Known: aloha_nomask, aloha_tiny, bridge"
        ):
            load_tiny(words, "bridge_datase")

    def test_missing_tokenizer(self, words: Path) -> None:
        (words / "tokenizer.json").unlink()
        with pytest.raises(CheckpointError, match=r"no tokenizer\.json. Copy it"):
            load_tiny(words)
        (words / "tokenizer.model").write_bytes(b"sentencepiece")
        with pytest.raises(CheckpointError, match=r"tokenizer\.model can be converted: .*AutoTokenizer"):
            load_tiny(words)

    def test_a_tokenizer_s_padding_and_truncation_are_none_of_the_prompt_s_business(self, words: Path) -> None:
        before = load_tiny(words).processor.prompts.ids("w24 w121 w77")
        tokenizer = Tokenizer.from_file(str(words / "tokenizer.json"))
        tokenizer.enable_padding(length=64, pad_id=0)
        tokenizer.enable_truncation(2)
        tokenizer.save(str(words / "tokenizer.json"))
        policy = load_tiny(words)
        assert policy.processor.prompts.ids("w24 w121 w77") == before == [1, 24, 121, 77, 150]
        assert policy.processor.prompts.tokenizer.padding is not None, "what is saved is the tokenizer as it came"

    def test_a_tokenizer_without_bos(self, words: Path) -> None:
        tokenizer = Tokenizer.from_file(str(words / "tokenizer.json"))
        tokenizer.post_processor = processors.TemplateProcessing(single="$A", special_tokens=[])
        tokenizer.save(str(words / "tokenizer.json"))
        with pytest.raises(CheckpointError, match="does not begin a prompt with BOS"):
            greedy(load_tiny(words))


class TestComponents:
    def test_a_regression_head_is_for_evaluation_only(self, words: Path) -> None:
        add_component(words, "action_head", golden_component("libero_l1_action_head"))
        policy = load_tiny(words, "libero_spatial_no_noops", chunk_length=8)
        assert torch.isfinite(greedy(policy).actions_BLA).all()
        with pytest.raises(ConfigError, match=r"lm_head.* never supervised"):
            policy.act(observation(size=56), temperature=1.6)
        with pytest.raises(CheckpointError, match=r"action_head=tokens.* never supervised"):
            load_tiny(words, action_head="tokens")

    def test_any_step_or_the_latest(self, words: Path) -> None:
        weights = golden_component("libero_l1_action_head")
        path = add_component(words, "action_head", weights, steps="5000")
        by_step = read_components(words)
        path.rename(words / "action_head--latest_checkpoint.pt")
        latest = read_components(words)
        assert by_step.keys() == latest.keys() == {name.replace("module.", "action_head.") for name in weights}
        add_component(words, "action_head", weights, steps="5000")
        with pytest.raises(CheckpointError, match=r"2 files of action_head: action_head--5000.*action_head--latest"):
            load_tiny(words)

    def test_another_robot_s_head(self, words: Path) -> None:
        add_component(words, "action_head", golden_component("libero_l1_action_head"))
        with pytest.raises(CheckpointError, match=r"predicts 7 dimensions, but the actions of 'aloha_tiny' have 14"):
            load_tiny(words, "aloha_tiny")

    def test_another_robot_s_proprioception(self, words: Path) -> None:
        add_component(words, "proprio_projector", golden_component("libero_l1_proprio_projector"))
        with pytest.raises(CheckpointError, match=r"takes 8 values, the statistics of 'bridge_dataset' have 7"):
            load_tiny(words)

    def test_proprioception_without_statistics(self, words: Path) -> None:
        add_component(words, "proprio_projector", golden_component("libero_l1_proprio_projector"))
        statistics = json.loads((words / "dataset_statistics.json").read_text())
        del statistics["libero_spatial_no_noops"]["proprio"]
        (words / "dataset_statistics.json").write_text(json.dumps(statistics))
        with pytest.raises(CheckpointError, match="hold no 'proprio' entry"):
            load_tiny(words, "libero_spatial_no_noops")

    def test_damaged_files(self, words: Path) -> None:
        weights = golden_component("libero_l1_action_head")
        path = add_component(words, "action_head", weights)
        os.truncate(path, 1000)
        with pytest.raises(CheckpointError, match="truncated, corrupt"):
            load_tiny(words)
        path = add_component(words, "action_head", {"module.model.fc2.weight": weights["module.model.fc2.weight"]})
        with pytest.raises(CheckpointError, match="lack action_head"):
            load_tiny(words)

    def test_code_in_a_file_is_not_run(self, words: Path, tmp_path: Path) -> None:
        class Trap:
            def __reduce__(self) -> tuple[Any, ...]:
                return Path.touch, (tmp_path / "sprung",)

        torch.save({"module.model.fc1.weight": Trap()}, words / "action_head--1_checkpoint.pt")
        with pytest.raises(CheckpointError, match="more than tensors"):
            load_tiny(words)
        assert not (tmp_path / "sprung").exists()

    def test_diffusion_heads_are_not_supported(self, words: Path) -> None:
        add_component(words, "noisy_action_projector", {"module.fc1.weight": torch.zeros(1, 1)})
        with pytest.raises(CheckpointError, match="diffusion head"):
            load_tiny(words)

    @pytest.mark.parametrize("alpha", [None, 48])
    def test_unmerged_factors_of_film_towers(self, words: Path, tmp_path: Path, alpha: int | None) -> None:
        """The same towers, merged and as a base with LoRA factors: at the adapter's alpha, or the reference's 16."""
        merged = copy_checkpoint(tmp_path / "merged")
        WORDS.save(str(merged / "tokenizer.json"))
        towers, module = film_towers(), "vision_backbone.featurizer.blocks.1.block.attn.qkv"
        factor = replace(factors(module, towers, rank=32), scaling=(alpha or 16) / 32)
        if alpha is not None:
            (words / "lora_adapter").mkdir()
            (words / "lora_adapter" / "adapter_config.json").write_text(json.dumps({"lora_alpha": alpha}))
        add_component(merged, "vision_backbone", merge(towers, {module: factor}))
        unmerged = {f"{module}.lora_A.default.weight": factor.a_RI, f"{module}.lora_B.default.weight": factor.b_OR}
        for name, tensor in towers.items():
            inner = name.replace(f"{module}.", f"{module}.base_layer.") if name.startswith(f"{module}.") else name
            unmerged[inner] = tensor
        add_component(words, "vision_backbone", unmerged)
        ours, theirs = (load_tiny(path).model.state_dict() for path in (words, merged))
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)
