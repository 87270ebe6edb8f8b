"""The network gives the reference's numbers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from oft_cases import PAD_TOKEN, golden_prompts, rows
from safetensors.torch import load_file
from torch import Tensor

from gymnast_openvla_oft.checkpoint import load_model
from gymnast_openvla_oft.model import OFTModel
from gymnast_openvla_oft.prompt import pad_prompts

Case = dict[str, Tensor]


def load(golden: Path, attention: str = "sdpa", name: str = "tiny_ckpt") -> OFTModel:
    directory = golden / name
    config = json.loads((directory / "config.json").read_text())
    return load_model(directory, config, attention=attention)


def pixels(case: Case) -> Tensor:
    return case["pixel_values"].unflatten(1, (-1, 6))


def close(found: Tensor, wanted: Tensor) -> None:
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_hidden_states_and_logits(golden: Path, case: Case, attention: str) -> None:
    model = load(golden, attention)
    hidden = model(pixels(case), golden_prompts(case), case["greedy_token_ids"].shape[1])
    close(hidden.actions_BKE, case["action_hidden_states"])
    logits_BKC = model.action_logits(hidden.actions_BKE)
    close(logits_BKC, case["action_logits_256"])
    assert torch.equal(logits_BKC.argmax(-1) + PAD_TOKEN - 256, case["greedy_token_ids"])


@torch.no_grad()
def test_vision_projector_and_input_sequence(golden: Path, case: Case) -> None:
    model = load(golden)
    features = model.vision_backbone(pixels(case))
    close(features, case["vision_patches"])
    patches = model.projector(features)
    close(patches, case["projected_patches"])
    embeds, real = model.embed(patches, golden_prompts(case), case["greedy_token_ids"].shape[1])
    assert torch.equal(real, case["lm_attention_mask"].bool())
    close(embeds[real], case["lm_inputs_embeds"][real])


@torch.no_grad()
def test_attention_is_not_causal(golden: Path, case: Case) -> None:
    model = load(golden)
    hidden = model(pixels(case), golden_prompts(case), case["greedy_token_ids"].shape[1])
    causal = case["NEGATIVE_causal_logits_256_last_sample"]
    assert (model.action_logits(hidden.actions_BKE)[-1] - causal).abs().max() > 1.0


@torch.no_grad()
def test_padded_rows_equal_rows_alone(golden: Path, bridge: Case) -> None:
    model = load(golden)
    together = model(pixels(bridge), golden_prompts(bridge), 35).actions_BKE
    for i, row in enumerate(rows(bridge["input_ids"], bridge["attention_mask"])):
        alone = model(pixels(bridge)[i : i + 1], pad_prompts([row], PAD_TOKEN), 35).actions_BKE
        close(together[i : i + 1], alone)


@torch.no_grad()
@pytest.mark.parametrize("temperature", [1.0, 1.6])
def test_log_probabilities_and_entropies(golden: Path, case: Case, temperature: float) -> None:
    model = load(golden)
    hidden = model(pixels(case), golden_prompts(case), case["greedy_token_ids"].shape[1])
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


def test_policy_gradients(golden: Path) -> None:
    """The clipped loss of two trajectories of two chunks, and its gradients, equal the reference's update."""
    facts = json.loads((golden / "policy_update.json").read_text())
    update = load_file(golden / "policy_update.safetensors")
    model = load(golden)
    mask = update["response_mask"]
    losses = []
    for i in range(2):
        prompts = pad_prompts(rows(update["input_ids"][i], update["attention_mask"][i]), PAD_TOKEN)
        hidden = model(update["pixel_values"][i][:, None], prompts, 35)
        log_probs = (model.action_logits(hidden.actions_BKE) / facts["temperature"]).log_softmax(-1)
        classes = update["responses"][i] - (PAD_TOKEN - 256)
        chosen = log_probs.gather(-1, classes[..., None]).flatten()
        entropy = -(log_probs.exp() * log_probs).sum(-1).flatten()
        close(chosen.detach() * mask[i], update["old_log_probs_current_policy"][i])
        close(entropy.detach() * mask[i], update["entropy"][i])
        ratio = (chosen - update["old_log_probs"][i]).exp()
        clipped = ratio.clamp(1 - facts["clip_low"], 1 + facts["clip_high"])
        advantage = update["advantages"][i]
        token_losses = torch.maximum(-advantage * ratio, -advantage * clipped)
        losses.append(token_losses[mask[i]].mean())
        assert losses[-1].item() == pytest.approx(facts["per_traj_pg_loss"][i], abs=1e-4)
    torch.stack(losses).mean().backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    for name, wanted in update.items():
        if name.startswith("grad::"):
            found = gradients[name.removeprefix("grad::")]
            torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-5)
    assert sorted(n for n, g in gradients.items() if g is None) == sorted(facts["params_without_grad"])
    present = [g for g in gradients.values() if g is not None]
    norm = torch.stack([g.norm() for g in present]).norm().item()
    assert norm == pytest.approx(facts["grad_norm"], rel=1e-3)
