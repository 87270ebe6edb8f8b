"""The network gives the reference's numbers."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from oft_cases import PAD_TOKEN, golden_prompts, rows
from torch import Tensor

from gymnast_openvla_oft.architecture import model_shape
from gymnast_openvla_oft.checkpoint import load_model
from gymnast_openvla_oft.model import Inputs, OFTModel
from gymnast_openvla_oft.prompt import pad_prompts
from gymnast_openvla_oft.weights import read_weights

Case = dict[str, Tensor]


def load(golden: Path, attention: str = "sdpa", name: str = "tiny_ckpt") -> OFTModel:
    directory = golden / name
    config = json.loads((directory / "config.json").read_text())
    return load_model(model_shape(config), read_weights(directory), where=directory, attention=attention)


def pixels(case: Case) -> Tensor:
    return case["pixel_values"].unflatten(1, (-1, 6))


def inputs(case: Case) -> Inputs:
    return Inputs(pixels(case), golden_prompts(case))


def close(found: Tensor, wanted: Tensor) -> None:
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("attention", ["auto", "sdpa", "eager"])
def test_hidden_states_and_logits(golden: Path, case: Case, attention: str) -> None:
    model = load(golden, attention)
    hidden = model(inputs(case), case["greedy_token_ids"].shape[1])
    close(hidden.actions_BKE, case["action_hidden_states"])
    logits_BKC = model.action_logits(hidden.actions_BKE)
    close(logits_BKC, case["action_logits_256"])
    assert torch.equal(logits_BKC.argmax(-1) + PAD_TOKEN - 256, case["greedy_token_ids"])


@torch.no_grad()
def test_vision_projector_and_input_sequence(golden: Path, case: Case) -> None:
    model = load(golden)
    features = model.features(inputs(case))
    close(features, case["vision_patches"])
    patches = model.projector(features)
    close(patches, case["projected_patches"])
    embeds, real = model.embed(patches, golden_prompts(case), case["greedy_token_ids"].shape[1])
    assert torch.equal(real, case["lm_attention_mask"].bool())
    close(embeds[real], case["lm_inputs_embeds"][real])


@torch.no_grad()
def test_attention_is_not_causal(golden: Path, case: Case) -> None:
    model = load(golden)
    hidden = model(inputs(case), case["greedy_token_ids"].shape[1])
    causal = case["NEGATIVE_causal_logits_256_last_sample"]
    assert (model.action_logits(hidden.actions_BKE)[-1] - causal).abs().max() > 1.0


@torch.no_grad()
def test_padded_rows_equal_rows_alone(golden: Path, bridge: Case) -> None:
    model = load(golden)
    together = model(inputs(bridge), 35).actions_BKE
    for i, row in enumerate(rows(bridge["input_ids"], bridge["attention_mask"])):
        alone = model(Inputs(pixels(bridge)[i : i + 1], pad_prompts([row], PAD_TOKEN)), 35).actions_BKE
        close(together[i : i + 1], alone)


@torch.no_grad()
@pytest.mark.parametrize("temperature", [1.0, 1.6])
def test_log_probabilities_and_entropies(golden: Path, case: Case, temperature: float) -> None:
    model = load(golden)
    hidden = model(inputs(case), case["greedy_token_ids"].shape[1])
    log_probs = (model.action_logits(hidden.actions_BKE) / temperature).log_softmax(-1)
    for kind in ("sampled", "greedy"):
        classes = case[f"{kind}_token_ids"] - (PAD_TOKEN - 256)
        close(log_probs.gather(-1, classes[..., None])[..., 0], case[f"logprob_{kind}_T{temperature}"])
    close(-(log_probs.exp() * log_probs).sum(-1), case[f"entropy_T{temperature}"])


def test_shards_hold_the_same_weights(golden: Path) -> None:
    single, sharded = load(golden).state_dict(), load(golden, name="tiny_ckpt_sharded").state_dict()
    assert single.keys() == sharded.keys()
    for name, tensor in single.items():
        assert torch.equal(tensor.to(torch.bfloat16), sharded[name].to(torch.bfloat16)), name


def test_loading_leaves_the_global_random_state_alone(golden: Path) -> None:
    before = torch.get_rng_state()
    load(golden)
    assert torch.equal(before, torch.get_rng_state())


@torch.no_grad()
def test_features_computed_once_give_the_same_outputs(golden: Path, bridge: Case) -> None:
    model = load(golden)
    known = replace(inputs(bridge), pixels_BVCHW=None, features_BPE=model.features(inputs(bridge)))
    model.vision_backbone.featurizer.pos_embed.zero_()
    again = model(known, 35).actions_BKE
    close(again, bridge["action_hidden_states"])
    assert not torch.allclose(model(inputs(bridge), 35).actions_BKE, again, atol=1e-2)


def test_a_published_config_describes_the_published_weights() -> None:
    """The real sizes, without memory: as many bytes as the index of openvla-7b's bfloat16 shards states."""
    towers = ["vit_large_patch14_reg4_dinov2.lvd142m", "vit_so400m_patch14_siglip_224"]
    text = {"model_type": "llama", "pad_token_id": 32000, "torch_dtype": "bfloat16", "vocab_size": 32064}
    config = {"image_sizes": [224, 224], "pad_to_multiple_of": 64, "text_config": text, "timm_model_ids": towers}
    model = OFTModel.empty(model_shape(config))
    assert 2 * sum(tensor.numel() for tensor in model.state_dict().values()) == 15_082_474_368
    assert model.shape.effective_vocabulary == 32000
    assert model.shape.dino.patches == model.shape.siglip.patches == 256
    assert model.language_model.config.rms_norm_eps == 1e-6
