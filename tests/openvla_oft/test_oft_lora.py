"""LoRA through peft, and gradient checkpointing: who learns, what is saved, what goes on."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from oft_cases import QUERY, load_tiny, observation, small_config
from safetensors.torch import load_file
from torch import Tensor, nn

from gymnast_core.errors import ConfigError
from gymnast_core.types import ActionChunk
from gymnast_openvla_oft.adapters import read_adapter
from gymnast_openvla_oft.architecture import checkpoint_config, model_shape
from gymnast_openvla_oft.lora import adapted_modules
from gymnast_openvla_oft.model import OFTModel
from gymnast_openvla_oft.policy import OpenVLAOFT
from gymnast_openvla_oft.tuning import Tuning, apply_tuning


def policy(**train: Any) -> OpenVLAOFT:
    return OpenVLAOFT(replace(small_config(), train=Tuning(**train))).eval()


def chunk_of(of: OpenVLAOFT) -> ActionChunk:
    return of.act(observation(), generator=torch.Generator().manual_seed(0))


def update(of: OpenVLAOFT, chunk: ActionChunk, steps: int = 2) -> None:
    optimizer = torch.optim.AdamW([p for p in of.parameters() if p.requires_grad], lr=0.01)
    for _ in range(steps):
        optimizer.zero_grad()
        log_prob = of.evaluate(observation(), chunk).log_prob_BLD
        log_prob.sum().backward()
        optimizer.step()


def log_prob(of: OpenVLAOFT, chunk: ActionChunk) -> Tensor:
    with torch.no_grad():
        return of.evaluate(observation(), chunk).log_prob_BLD


class TestLora:
    def test_it_starts_as_the_plain_policy(self) -> None:
        chunk = chunk_of(policy())
        assert torch.equal(chunk_of(policy(lora_rank=4)).log_prob_BLD, chunk.log_prob_BLD)

    @pytest.mark.parametrize("vision", ["full", "frozen"])
    def test_only_the_factors_learn_and_all_of_them(self, vision: str) -> None:
        ours = policy(lora_rank=3, vision=vision)
        before = {name: x.clone() for name, x in ours.state_dict().items()}
        update(ours, chunk_of(ours), steps=3)
        changed = {name for name, x in ours.state_dict().items() if not torch.equal(x, before[name])}
        learning = {name for name, p in ours.named_parameters() if p.requires_grad}
        assert changed == learning and all(".lora_" in name for name in learning)
        assert any("vision_backbone" in name for name in learning) == (vision == "full")
        modules = {name.partition(".lora_")[0].removeprefix("model.") for name in learning}
        assert QUERY in modules and "projector.fc2" in modules and "language_model.lm_head" not in modules

    def test_every_linear_layer_of_the_7b_model_but_the_head_is_adapted(self) -> None:
        """Against the count of a published OpenVLA-OFT adapter: 7 a Llama layer, 4 a used tower block, 3 of the
        projector (its factors of the unused last blocks and the pooling head never learn)."""
        model = OFTModel.empty(model_shape(config_7b()))
        names = adapted_modules(model)
        assert len(names) == 32 * 7 + (23 + 26) * 4 + 3
        apply_tuning(model, Tuning(lora_rank=32))
        learning = sum(p.numel() for p in model.parameters() if p.requires_grad)
        sizes = [model.get_submodule(name).base_layer.weight.shape for name in names]  # type: ignore[union-attr]
        assert learning == sum(32 * (outputs + inputs) for outputs, inputs in sizes)
        assert 7.4e9 < sum(p.numel() for p in model.parameters()) < 7.7e9

    def test_its_seed_decides_and_the_global_state_does_not(self) -> None:
        state = torch.get_rng_state()
        first, again, other = (policy(lora_rank=2, lora_seed=seed).state_dict() for seed in (1, 1, 2))
        assert torch.equal(torch.get_rng_state(), state)
        drawn = [name for name in first if ".lora_A" in name]
        assert drawn and all(torch.equal(first[name], again[name]) for name in drawn)
        assert not any(torch.equal(first[name], other[name]) for name in drawn)
        for name in drawn:
            bound = first[name].shape[1] ** -0.5
            assert 0.3 * bound < first[name].std() < 0.8 * bound and first[name].abs().max() <= bound

    def test_factors_of_bfloat16_weights_are_float32(self) -> None:
        ours = OpenVLAOFT(replace(small_config(), dtype="bfloat16", train=Tuning(lora_rank=2))).eval()
        assert {p.dtype for p in ours.parameters() if p.requires_grad} == {torch.float32}
        chunk = chunk_of(ours)
        update(ours, chunk)
        assert not torch.equal(log_prob(ours, chunk), chunk.log_prob_BLD)

    def test_saved_merged_and_as_an_adapter_of_its_base(self, words: Path, tmp_path: Path) -> None:
        ours = load_tiny(words, train=Tuning(lora_rank=4, lora_alpha=8.0)).eval()
        chunk = self.trained(ours)
        ours.save(tmp_path)
        plain = {name: x.shape for name, x in load_file(words / "model.safetensors").items()}
        assert {name: x.shape for name, x in load_file(tmp_path / "model.safetensors").items()} == plain
        wanted = self.score(ours, chunk)
        torch.testing.assert_close(self.score(load_tiny(tmp_path).eval(), chunk), wanted, atol=1e-5, rtol=0)
        config = json.loads((tmp_path / "lora_adapter/adapter_config.json").read_text())
        assert (config["r"], config["lora_alpha"], config["base_model_name_or_path"]) == (4, 8.0, str(words))
        # peft puts the adapter on the base, and gets the trained model.
        base = load_tiny(words).eval()
        base.model.config = {"model_type": "openvla"}  # type: ignore[assignment]
        peft.PeftModel.from_pretrained(base.model, str(tmp_path / "lora_adapter"))
        torch.testing.assert_close(self.score(base, chunk), wanted, atol=1e-5, rtol=0)

    def test_it_goes_on_where_it_was_saved(self, words: Path, tmp_path: Path) -> None:
        tuning = Tuning(lora_rank=4, lora_alpha=8.0)
        ours = load_tiny(words, train=tuning).eval()
        chunk = self.trained(ours)
        ours.save(tmp_path / "run")
        again = load_tiny(tmp_path / "run", base=str(words), train=tuning).eval()
        for name, x in ours.state_dict().items():
            assert torch.equal(again.state_dict()[name], x), name
        for of in (ours, again):
            self.trained(of, chunk)
        for name, x in ours.state_dict().items():
            assert torch.equal(again.state_dict()[name], x), name
        again.save(tmp_path / "more")
        saved = read_adapter(tmp_path / "more/lora_adapter")
        assert saved.keys() == read_adapter(tmp_path / "run/lora_adapter").keys()

    def test_factors_of_what_is_frozen_now_are_merged(self, words: Path, tmp_path: Path) -> None:
        ours = load_tiny(words, train=Tuning(lora_rank=2)).eval()
        chunk = self.trained(ours)
        ours.save(tmp_path)
        frozen = load_tiny(tmp_path, base=str(words), train=Tuning(lora_rank=2, vision="frozen")).eval()
        torch.testing.assert_close(self.score(frozen, chunk), self.score(ours, chunk), atol=1e-5, rtol=0)
        assert not any("vision_backbone" in name for name, p in frozen.named_parameters() if p.requires_grad)

    def test_another_rank_is_refused_with_what_to_set(self, words: Path, tmp_path: Path) -> None:
        ours = load_tiny(words, train=Tuning(lora_rank=2))
        ours.save(tmp_path)
        with pytest.raises(ConfigError, match=r"rank 2 and alpha 2 .* asks for 4 and 4.*train.lora_rank=2"):
            load_tiny(tmp_path, base=str(words), train=Tuning(lora_rank=4))

    def test_parts_of_their_own_learn_in_full(self) -> None:
        architecture = replace(small_config().architecture, proprio_low=[-1.0], proprio_high=[1.0])
        config = replace(small_config(), architecture=architecture, proprio=True, film=True)
        ours = OpenVLAOFT(replace(config, train=Tuning(lora_rank=2)))
        learning = {name for name, p in ours.named_parameters() if p.requires_grad and ".lora_" not in name}
        assert {
            "model.proprio_projector.fc1.weight",
            "model.vision_backbone.featurizer.blocks.0.scale.bias",
        } <= learning
        assert all("proprio_projector" in name or ".scale." in name or ".shift." in name for name in learning)
        assert not any("blocks.1" in name for name in learning)

    def trained(self, of: OpenVLAOFT, chunk: ActionChunk | None = None) -> ActionChunk:
        seen = observation(size=56)
        chunk = chunk or of.act(seen, generator=torch.Generator().manual_seed(0))
        optimizer = torch.optim.SGD([p for p in of.parameters() if p.requires_grad], lr=0.05)
        of.evaluate(seen, chunk).log_prob_BLD.mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        return chunk

    def score(self, of: OpenVLAOFT, chunk: ActionChunk) -> Tensor:
        with torch.no_grad():
            return of.evaluate(observation(size=56), chunk).log_prob_BLD


@pytest.mark.parametrize(
    "train",
    [{}, {"vision": "frozen"}, {"lora_rank": 2}, {"vision": "frozen", "lora_rank": 2}],
    ids=["full", "frozen", "lora", "lora-frozen"],
)
class TestCheckpointing:
    def test_gradients_are_the_same(self, train: dict[str, Any]) -> None:
        plain, saving = policy(**train), policy(**train, checkpointing=True)
        chunk = chunk_of(plain)
        found = []
        for of in (plain, saving, copy.deepcopy(saving)):
            scored = of.evaluate(observation(), chunk)
            (scored.log_prob_BLD.sum() + scored.entropy_BLD.sum()).backward()
            found.append({name: p.grad for name, p in of.named_parameters() if p.grad is not None})
        assert found[0].keys() == found[1].keys() == found[2].keys()
        for name, grad in found[0].items():
            assert torch.equal(found[1][name], grad) and torch.equal(found[2][name], grad), name

    def test_less_is_kept(self, train: dict[str, Any]) -> None:
        def kept(of: OpenVLAOFT) -> int:
            stored: dict[int, int] = {}
            own = {p.untyped_storage().data_ptr() for p in of.parameters()}

            def pack(x: Tensor) -> Tensor:
                storage = x.untyped_storage()
                if storage.data_ptr() not in own:
                    stored[storage.data_ptr()] = storage.nbytes()
                return x

            with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
                held = of.evaluate(observation(), chunk)
                assert held.log_prob_BLD.requires_grad
                return sum(stored.values())

        plain, saving = policy(**train), policy(**train, checkpointing=True)
        chunk = chunk_of(plain)
        assert kept(saving) < 0.5 * kept(plain)


def config_7b() -> dict[str, Any]:
    """The config.json of openvla-7b: everything else about Llama 2 7B is transformers' default."""
    small = checkpoint_config(small_config().architecture, 0, "x")
    text = {"model_type": "llama", "pad_token_id": 32000, "vocab_size": 32064}
    del small["action_token_ids"], small["pad_token_id"]
    return {**small, "image_sizes": [224, 224], "tiny_timm_kwargs": None, "text_config": text}


def test_modules_are_linear_layers() -> None:
    ours = policy()
    assert all(isinstance(ours.model.get_submodule(name), nn.Linear) for name in adapted_modules(ours.model))
