"""What is saved is what was loaded, in the reference's layout, and others can read it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from oft_cases import (
    GOLDEN,
    WORDS,
    add_component,
    copy_checkpoint,
    film_towers,
    golden_component,
    observation,
    seeing,
    small_config,
)
from safetensors.torch import load_file
from torch import Tensor, nn

from gymnast_core.errors import CheckpointError
from gymnast_core.types import Observation
from gymnast_openvla_oft.checkpoint import save_checkpoint
from gymnast_openvla_oft.components import film_name
from gymnast_openvla_oft.policy import OpenVLAOFT

KEY = "libero_spatial_no_noops"
MANIFEST = {name: tuple(x.shape) for name, x in load_file(GOLDEN / "tiny_ckpt" / "model.safetensors").items()}


def load(directory: Path, **options: Any) -> OpenVLAOFT:
    return OpenVLAOFT(OpenVLAOFT.Config(checkpoint=str(directory), unnorm_key=KEY, **{"images": 1, **options}))


def seen() -> Observation:
    made = observation(size=56)
    return seeing(made.latest_BVHWC, made.instructions, torch.rand(3, 8, generator=torch.Generator().manual_seed(1)))


def lora_config() -> peft.LoraConfig:
    return peft.LoraConfig(r=3, lora_alpha=6, target_modules=r".*(q_proj|down_proj|attn\.qkv|fc2)")


def train_lora(policy: OpenVLAOFT) -> None:
    """Put factors that matter into a policy, as a few steps of training would."""
    peft.inject_adapter_in_model(lora_config(), policy.model)
    generator = torch.Generator().manual_seed(7)
    for name, parameter in policy.model.named_parameters():
        if ".lora_" in name:
            parameter.data.normal_(0.0, 0.2, generator=generator)


@pytest.mark.parametrize("name", ["tiny_ckpt", "tiny_ckpt_sharded"])
def test_round_trip_of_the_reference_layout(tmp_path: Path, name: str) -> None:
    source = copy_checkpoint(tmp_path / "source", name)
    WORDS.save(str(source / "tokenizer.json"))
    dtype = "bfloat16" if name.endswith("sharded") else "float32"
    policy = load(source, chunk_length=8, dtype=dtype)
    policy.save(tmp_path / "saved")
    saved = load_file(tmp_path / "saved" / "model.safetensors")
    assert {key: tuple(x.shape) for key, x in saved.items()} == MANIFEST
    for key, tensor in policy.model.state_dict().items():
        assert saved[key].dtype == getattr(torch, dtype)
        assert torch.equal(saved[key], tensor)
    for file in ("config.json", "dataset_statistics.json", "preprocessor_config.json", "generation_config.json"):
        before, after = (json.loads((folder / file).read_text()) for folder in (source, tmp_path / "saved"))
        assert {k: after.get(k) for k in before} == before, file
    reloaded = load(tmp_path / "saved", dtype=dtype)
    ours, theirs = (p.act(seen(), generator=torch.Generator().manual_seed(3)) for p in (policy, reloaded))
    assert reloaded.chunk_length == 8
    assert torch.equal(ours.actions_BLA, theirs.actions_BLA)
    assert torch.equal(ours.log_prob_BLD, theirs.log_prob_BLD)


def test_shards_replace_a_single_file_and_back(words: Path, tmp_path: Path) -> None:
    policy, saved = load(words), tmp_path / "saved"
    policy.save(saved)
    save_checkpoint(saved, policy.description, policy.processor.prompts.tokenizer, policy.model, max_shard=500_000)
    shards = sorted(path.name for path in saved.glob("*.safetensors"))
    assert len(shards) >= 3 and "model.safetensors" not in shards
    index = json.loads((saved / "model.safetensors.index.json").read_text())
    assert set(index["weight_map"]) == set(MANIFEST)
    assert set(index["weight_map"].values()) == set(shards)
    assert index["metadata"]["total_size"] == sum(x.numel() * 4 for x in policy.model.state_dict().values())
    chunk, again = (p.act(seen(), temperature=0.0) for p in (policy, load(saved)))
    assert torch.equal(chunk.log_prob_BLD, again.log_prob_BLD)
    policy.save(saved)
    assert [path.name for path in saved.glob("model*")] == ["model.safetensors"]


def test_files_for_other_readers_are_carried_along(words: Path, tmp_path: Path) -> None:
    (words / "tokenizer.model").write_bytes(b"\x00sentences")
    (words / "tokenizer_config.json").write_text('{"tokenizer_class": "LlamaTokenizer"}')
    (words / "modeling_prismatic.py").write_text("raise SystemExit  # must never run")
    load(words).save(tmp_path / "saved")
    for name in ("tokenizer.model", "tokenizer_config.json", "modeling_prismatic.py"):
        assert (tmp_path / "saved" / name).read_bytes() == (words / name).read_bytes()


def test_component_files_survive_under_their_published_names(words: Path, tmp_path: Path) -> None:
    head, projector = (golden_component(f"libero_l1_{name}") for name in ("action_head", "proprio_projector"))
    add_component(words, "action_head", head)
    add_component(words, "proprio_projector", projector)
    add_component(words, "vision_backbone", film_towers())
    policy, saved = load(words, chunk_length=8), tmp_path / "saved"
    policy.save(saved)
    assert {k: tuple(x.shape) for k, x in load_file(saved / "model.safetensors").items()} == MANIFEST
    for name, wanted in (("action_head", head), ("proprio_projector", projector)):
        found = torch.load(saved / f"{name}--latest_checkpoint.pt", weights_only=True)
        assert found.keys() == wanted.keys()
        assert all(torch.equal(found[key], wanted[key]) for key in wanted)
    ours, theirs = (p.act(seen(), temperature=0.0).actions_BLA for p in (policy, load(saved)))
    assert torch.equal(ours, theirs)
    add_component(saved, "action_head", head, steps="5")
    policy.save(saved)
    assert sorted(path.name for path in saved.glob("action_head--*")) == ["action_head--latest_checkpoint.pt"]


def test_the_film_file_has_the_names_that_peft_gives_the_towers(words: Path, tmp_path: Path) -> None:
    """The reference loads the file strictly, into towers that it put under peft with all linear layers adapted."""
    add_component(words, "vision_backbone", film_towers())
    load(words, chunk_length=8).save(tmp_path / "saved")
    found = torch.load(tmp_path / "saved" / "vision_backbone--latest_checkpoint.pt", weights_only=True)
    plain = load(words, chunk_length=8).model.vision_backbone
    for block in (*plain.featurizer.blocks, *plain.fused_featurizer.blocks):
        del block.scale, block.shift  # the reference adds FiLM after peft
    linear = [name for name, module in plain.named_modules() if isinstance(module, nn.Linear)]
    peft.inject_adapter_in_model(peft.LoraConfig(r=32, lora_alpha=16, target_modules=linear), plain)
    wanted = {film_name(f"vision_backbone.{name}"): x for name, x in plain.state_dict().items()}
    wanted |= golden_component("libero_film_only_params")
    assert {name: tuple(x.shape) for name, x in found.items()} == {name: tuple(x.shape) for name, x in wanted.items()}


def test_a_policy_under_peft_is_saved_merged_with_its_adapter(words: Path, tmp_path: Path) -> None:
    policy, saved = load(words), tmp_path / "saved"
    before = policy.act(seen(), temperature=0.0)
    train_lora(policy)
    trained = policy.act(seen(), temperature=0.0)
    assert not torch.allclose(trained.log_prob_BLD, before.log_prob_BLD, atol=1e-2)
    policy.save(saved)
    assert {k: tuple(x.shape) for k, x in load_file(saved / "model.safetensors").items()} == MANIFEST
    merged = load(saved)
    torch.testing.assert_close(
        merged.act(seen(), temperature=0.0).log_prob_BLD, trained.log_prob_BLD, atol=1e-4, rtol=0
    )
    # The adapter alone, on its base, is the same model.
    for path in saved.glob("model*"):
        path.unlink()
    adapted = load(saved, base=str(words))
    for name, tensor in adapted.model.state_dict().items():
        torch.testing.assert_close(tensor, merged.model.state_dict()[name], atol=1e-6, rtol=0)


@pytest.mark.filterwarnings("ignore:Already found a `peft_config`")
def test_two_adapters_are_not_saved_as_one(words: Path, tmp_path: Path) -> None:
    policy = load(words)
    peft.inject_adapter_in_model(lora_config(), policy.model, adapter_name="first")
    peft.inject_adapter_in_model(lora_config(), policy.model, adapter_name="second")
    with pytest.raises(CheckpointError, match="more than one adapter"):
        policy.save(tmp_path / "saved")


def test_peft_reads_the_adapter(words: Path, tmp_path: Path) -> None:
    """peft puts the saved adapter on the plain model, and gives the trained model's outputs."""
    policy, saved = load(words), tmp_path / "saved"
    train_lora(policy)
    trained = policy.act(seen(), temperature=0.0)
    policy.save(saved)
    plain = load(words)
    wrapped = peft.PeftModel.from_pretrained(peftable(plain.model), str(saved / "lora_adapter"))
    again = plain.act(seen(), temperature=0.0)
    torch.testing.assert_close(again.log_prob_BLD, trained.log_prob_BLD, atol=1e-5, rtol=0)
    assert wrapped.peft_config["default"].r == 3
    wrapped.merge_and_unload()
    merged: dict[str, Tensor] = plain.model.state_dict()
    reloaded = load(saved).model.state_dict()
    assert all(torch.allclose(merged[name], reloaded[name], atol=1e-5) for name in reloaded)


def peftable(model: nn.Module) -> nn.Module:
    """peft asks a model for the config that transformers' models have."""
    model.config = {"model_type": "openvla"}  # type: ignore[assignment]
    return model


def test_from_scratch_regression_head_and_proprioception(tmp_path: Path) -> None:
    config = small_config()
    architecture = replace(config.architecture, proprio_low=[-1.0] * 3, proprio_high=[1.0] * 3)
    policy = OpenVLAOFT(replace(config, architecture=architecture, action_head="l1", proprio=True, film=True))
    policy.save(tmp_path)
    loaded = OpenVLAOFT(OpenVLAOFT.Config(checkpoint=str(tmp_path)))
    made = replace(observation(), proprio_BTP=torch.zeros(3, 1, 3))
    ours, theirs = (p.act(made, temperature=0.0).actions_BLA for p in (policy, loaded))
    assert torch.equal(ours, theirs)
