"""Plain OpenVLA: autoregressive, causal, whole vocabulary; checked against transformers' own generation."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from oft_cases import INSTRUCTIONS, add_component, episodes, golden_component, observation, seeing, small_config
from transformers import GenerationConfig

from gymnast_core.errors import CheckpointError, ConfigError, DataError
from gymnast_core.testing import check_policy
from gymnast_core.types import Observation
from gymnast_openvla_oft.imitation import Imitation
from gymnast_openvla_oft.normalisation import Normaliser
from gymnast_openvla_oft.openvla import OpenVLA

KEY = "bridge_dataset"


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def load(directory: Path, **options: str) -> OpenVLA:
    return OpenVLA(OpenVLA.Config(checkpoint=str(directory), unnorm_key=KEY, images=2, **options))


def small() -> OpenVLA:
    config = small_config()
    return OpenVLA(OpenVLA.Config(architecture=config.architecture, imitation=config.imitation))


def seen() -> Observation:
    """Prompts of 4, 9 and 7 words: the word tokenizer reads each as so many tokens."""
    texts = ("w24 w121 w77 w9", "w5 w6 w7 w8 w9 w10 w11 w12 w13", "w140 w17 w19 w24 w3 w3 w88")
    return replace(observation(size=56, views=2), instructions=texts)


@torch.no_grad()
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_greedy_tokens_equal_transformers_generation(words: Path, attention: str) -> None:
    """Row by row, `LlamaForCausalLM.generate` continues the same embeddings with the same tokens."""
    policy = load(words, attention=attention)
    chunk = policy.act(seen(), temperature=0.0)
    llama, embed = policy.model.language_model, policy.model.language_model.model.embed_tokens
    inputs = policy.inputs(seen(), 7)
    patches = policy.model.prefix(inputs)
    settings = GenerationConfig(
        max_new_tokens=7, do_sample=False, eos_token_id=None, pad_token_id=0,
        output_logits=True, return_dict_in_generate=True,
    )  # fmt: skip
    for i, text in enumerate(seen().instructions):
        ids = torch.tensor([policy.processor.prompts.ids(text)])
        prompt = torch.cat([embed(ids[:, :1]), patches[i : i + 1], embed(ids[:, 1:])], dim=1)
        mask = torch.ones(prompt.shape[:2], dtype=torch.long)
        found = llama.generate(inputs_embeds=prompt, attention_mask=mask, generation_config=settings)
        assert torch.equal(found.sequences[0], chunk.tokens_BLD[i, 0])
        log_probs = torch.stack(found.logits, dim=1).log_softmax(-1)[0]
        wanted = log_probs.gather(-1, found.sequences[0][:, None])[:, 0]
        torch.testing.assert_close(chunk.log_prob_BLD[i, 0], wanted, atol=1e-4, rtol=0)


@pytest.mark.parametrize("temperature", [0.0, 0.7, 1.6])
def test_evaluate_agrees_with_act(words: Path, temperature: float) -> None:
    """Teacher forcing without a cache gives what decoding with one gave, unequal prompts included."""
    policy = load(words)
    chunk = policy.act(seen(), temperature=temperature, generator=seeded(0))
    found = policy.evaluate(seen(), chunk, temperature=temperature)
    log_prob, entropy = found.log_prob_BLD, found.entropy_BLD
    torch.testing.assert_close(log_prob.detach(), chunk.log_prob_BLD, atol=1e-4, rtol=0)
    assert chunk.tokens_BLD.shape == log_prob.shape == entropy.shape == (3, 1, 7)
    assert log_prob.requires_grad and entropy.requires_grad


def test_the_same_network_as_openvla_oft_but_causal(words: Path) -> None:
    """Later tokens depend on earlier ones, and the first one not on later ones."""
    policy = load(words)
    chunk = policy.act(seen(), generator=seeded(1))
    changed = chunk.tokens_BLD.clone()
    changed[..., 3] = 300
    with torch.no_grad():
        before = policy.evaluate(seen(), chunk).log_prob_BLD
        after = policy.evaluate(seen(), replace(chunk, tokens_BLD=changed)).log_prob_BLD
    assert torch.equal(before[..., :3], after[..., :3])
    assert not torch.allclose(before[..., 4:], after[..., 4:], atol=1e-4)


def test_padding_does_not_matter(words: Path) -> None:
    policy, whole = load(words), seen()
    together = policy.act(whole, temperature=0.0)
    for i in range(3):
        alone = policy.act(seeing(whole.latest_BVHWC[i : i + 1], whole.instructions[i : i + 1]), temperature=0.0)
        assert torch.equal(alone.tokens_BLD[0], together.tokens_BLD[i])
        torch.testing.assert_close(alone.log_prob_BLD[0], together.log_prob_BLD[i], atol=1e-4, rtol=0)


def test_tokens_come_from_the_whole_vocabulary_and_become_the_nearest_action(words: Path) -> None:
    policy = load(words)
    tokens = policy.act(seen(), temperature=3.0, generator=seeded(2)).tokens_BLD
    assert (tokens < 192).any() and (tokens >= 192).any()
    assert policy.codec.decode(torch.tensor([0, 5])).tolist() == [policy.codec.decode(torch.tensor([193])).item()] * 2


def test_units_have_no_epsilon(words: Path) -> None:
    policy = load(words)
    chunk = policy.act(seen(), temperature=0.0)
    statistics = policy.description.norm_stats[KEY]["action"]
    x = policy.codec.decode(chunk.tokens_BLD)
    low, high = (torch.tensor(statistics[name], dtype=torch.float64) for name in ("q01", "q99"))
    by_hand = torch.where(torch.tensor(statistics["mask"]), 0.5 * (x + 1) * (high - low) + low, x)
    torch.testing.assert_close(policy.units.unnormalise(x), by_hand, atol=1e-15, rtol=0)
    with_epsilon = Normaliser("action", statistics, bounds="q99").unnormalise(x)
    assert not torch.equal(with_epsilon, by_hand)


def test_bfloat16(words: Path) -> None:
    policy = load(words, dtype="bfloat16")
    chunk = policy.act(seen(), generator=seeded(0))
    log_prob = policy.evaluate(seen(), chunk).log_prob_BLD
    assert chunk.log_prob_BLD.dtype == log_prob.dtype == torch.float32
    assert (log_prob - chunk.log_prob_BLD).abs().max() < 0.2


def test_it_keeps_the_contract_and_learns() -> None:
    check_policy(small(), image_size=16)
    policy = small()
    optimizer = torch.optim.AdamW([p for p in policy.parameters() if p.requires_grad], lr=1e-2)
    before = policy.validate(episodes(), generator=seeded(1))
    for step in range(30):
        loss = policy.training_loss(episodes(), generator=seeded(step))
        optimizer.zero_grad()
        loss.mean.backward()
        optimizer.step()
    after = policy.validate(episodes(), generator=seeded(1))
    assert after["token_loss"] < before["token_loss"] - 1.0
    assert after["action_l1"] < 0.1 < before["action_l1"]


def test_what_is_no_plain_openvla_is_refused(words: Path) -> None:
    chunk = small().act(observation(), temperature=0.0)
    with pytest.raises(ConfigError, match="plain cross-entropy"):
        OpenVLA(OpenVLA.Config(imitation=Imitation(auxiliary_points=1)))
    with pytest.raises(DataError, match="tokens are None"):
        small().evaluate(observation(), replace(chunk, tokens_BLD=None))
    add_component(words, "action_head", golden_component("libero_l1_action_head"))
    with pytest.raises(CheckpointError, match=r"policy\.name=openvla-oft"):
        load(words)


def test_instructions_and_images_both_matter() -> None:
    policy = small()
    log_prob = policy.act(observation(), temperature=0.0).log_prob_BLD
    renamed = replace(observation(), instructions=INSTRUCTIONS[::-1])
    darker = replace(observation(), images_BTVHWC=observation().images_BTVHWC // 2)
    assert not torch.equal(policy.act(renamed, temperature=0.0).log_prob_BLD[0], log_prob[0])
    assert not torch.equal(policy.act(darker, temperature=0.0).log_prob_BLD, log_prob)
