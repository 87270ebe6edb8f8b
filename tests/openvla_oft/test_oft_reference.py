"""The policy, built from a directory as anyone builds it, gives the reference's numbers."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from oft_cases import (
    CASES,
    GOLDEN,
    PAD_TOKEN,
    add_component,
    copy_checkpoint,
    film_towers,
    golden_component,
    golden_policy,
    instruction,
    rows,
    seeing,
)
from safetensors.torch import load_file
from torch import Tensor

from gymnast_core.testing.making import observe
from gymnast_core.types import ActionChunk, Needs, Observation, Task
from gymnast_openvla_oft.policy import OpenVLAOFT

ALOHA = "aloha6_3img_proprio"


def facts_of(name: str) -> dict[str, Any]:
    return json.loads((GOLDEN / f"{name}.json").read_text())


def built(name: str, directory: Path, **options: Any) -> tuple[OpenVLAOFT, Observation, dict[str, Tensor]]:
    """The policy of a case, what it saw, and what the reference made of it."""
    facts, case = facts_of(name), load_file(GOLDEN / f"{name}.safetensors")
    if name == ALOHA:
        add_component(directory, "proprio_projector", golden_component(f"{ALOHA}__proprio_projector"))
    proprio = case["proprio_raw"].float() if "proprio_raw" in case else None
    # The policy appends the trailing token where a prompt lacks it, as the reference does.
    instructions = tuple(instruction(ids) for ids in facts["prompts_before_trailing_token"])
    return golden_policy(directory, facts, **options), seeing(case["images_uint8"], instructions, proprio), case


def close(found: Tensor, wanted: Tensor, atol: float = 1e-4) -> None:
    torch.testing.assert_close(found, wanted, atol=atol, rtol=0)


def seen_as(policy: OpenVLAOFT, pixels_BVCHW: Tensor) -> Tensor:
    """Make the policy read these pixel values; returns images to hand it."""
    policy.processor = replace(policy.processor, images=lambda images: pixels_BVCHW)  # type: ignore[arg-type]
    batch, views = pixels_BVCHW.shape[:2]
    return torch.zeros(batch, views, 8, 8, 3, dtype=torch.uint8)


@pytest.mark.parametrize("name", [*CASES, ALOHA])
def test_act_and_evaluate(words: Path, name: str) -> None:
    policy, seen, case = built(name, words)
    greedy = policy.act(seen, temperature=0.0)
    assert torch.equal(greedy.tokens_BLD.flatten(1), case["greedy_token_ids"])
    close(greedy.log_prob_BLD.flatten(1), case["logprob_greedy_T1.0"])
    close(greedy.actions_BLA.double(), case["greedy_actions_unnorm"], atol=1e-6)
    for kind in ("greedy", "sampled"):
        tokens_BLA = case[f"{kind}_token_ids"].view_as(case[f"{kind}_actions_unnorm"])
        close(policy.units.unnormalise(policy.codec.decode(tokens_BLA)), case[f"{kind}_actions_unnorm"], atol=1e-9)
        for temperature in (1.0, 1.6):
            chunk = ActionChunk(greedy.actions_BLA, greedy.log_prob_BLD, tokens_BLA)
            found = policy.evaluate(seen, chunk, temperature=temperature)
            log_prob, entropy = found.log_prob_BLD, found.entropy_BLD
            close(log_prob.flatten(1), case[f"logprob_{kind}_T{temperature}"])
            close(entropy.flatten(1), case[f"entropy_T{temperature}"])


def test_normalised_proprioception(words: Path) -> None:
    policy, _, case = built(ALOHA, words)
    close(policy.processor.proprio.normalise(case["proprio_raw"]), case["proprio_normalized"], atol=1e-12)


@torch.no_grad()
@pytest.mark.parametrize("name", [*CASES, ALOHA])
def test_causal_attention_would_not_match(words: Path, name: str) -> None:
    """The reference's negative control is what a causal Llama makes of the same input, and not what ours does."""
    policy, seen, case = built(name, words)
    count, model = policy.chunk_length * policy.action_dim, policy.model
    inputs = policy.inputs(seen, count)
    negative = case["NEGATIVE_causal_logits_256_last_sample"]
    ours = model.action_logits(model(inputs, count).actions_BKE)[-1]
    close(ours, case["action_logits_256"][-1])
    assert (ours - negative).abs().max() > 1.0
    prefix = model.prefix(inputs)
    embeds, real = model.embed(prefix, inputs.prompts, count)
    causal = model.language_model.model(inputs_embeds=embeds[-1:, real[-1]]).last_hidden_state
    start = prefix.shape[1] + inputs.prompts.lengths_B[-1] - 1
    close(model.action_logits(causal[:, start : start + count])[0], negative)


def test_the_reference_s_numbers_from_the_cameras_and_readings_of_tasks(words: Path) -> None:
    """The tasks show the three cameras in another order and one more: what the policy needs is picked by name."""
    policy, seen, case = built(ALOHA, words, cameras=["cam_high", "cam_left_wrist", "cam_right_wrist"])
    needs = policy.needed
    assert needs == Needs(("cam_high", "cam_left_wrist", "cam_right_wrist"), proprio=14, actions=14)
    high, left, right = seen.latest_BVHWC.unbind(1)
    names = ("cam_right_wrist", "cam_low", "cam_high", "cam_left_wrist")
    frames_BTVHWC = torch.stack([right, 255 - high, high, left], dim=1)[:, None]
    assert seen.proprio_BTP is not None
    rows = zip(seen.instructions, frames_BTVHWC, seen.proprio_BTP, strict=True)
    tasks = [Task(text, text, frames, names, proprio_TP=proprio) for text, frames, proprio in rows]
    shown = observe(tasks, needs)
    assert shown.cameras == needs.cameras
    greedy = policy.act(shown, temperature=0.0)
    assert torch.equal(greedy.tokens_BLD.flatten(1), case["greedy_token_ids"])
    close(greedy.log_prob_BLD.flatten(1), case["logprob_greedy_T1.0"])
    close(greedy.actions_BLA.double(), case["greedy_actions_unnorm"], atol=1e-6)
    heat_B = torch.tensor([1.6, 1.0, 1.6])
    scored = policy.evaluate(shown, greedy, temperature=heat_B)
    for row, heat in enumerate(heat_B.tolist()):
        wanted = case[f"logprob_greedy_T{heat:.1f}"][row], case[f"entropy_T{heat:.1f}"][row]
        close(scored.log_prob_BLD[row].flatten(), wanted[0])
        close(scored.entropy_BLD[row].flatten(), wanted[1])


def test_three_images_and_proprioception_are_all_read(words: Path) -> None:
    policy, seen, case = built(ALOHA, words)
    wanted = case["logprob_greedy_T1.0"]
    for view in range(3):
        images = seen.latest_BVHWC.clone()
        images[:, view] = 0
        found = policy.act(replace(seen, images_BTVHWC=images[:, None]), temperature=0.0)
        assert not torch.allclose(found.log_prob_BLD.flatten(1), wanted, atol=1e-3)
    still = policy.act(replace(seen, proprio_BTP=torch.zeros(3, 1, 14)), temperature=0.0)
    assert not torch.allclose(still.log_prob_BLD.flatten(1), wanted, atol=1e-3)


def test_bfloat16_shards_stay_near_float32(tmp_path: Path, words: Path) -> None:
    directory = copy_checkpoint(tmp_path / "sharded", "tiny_ckpt_sharded")
    (directory / "tokenizer.json").write_bytes((words / "tokenizer.json").read_bytes())
    policy, seen, case = built("bridge_1img", directory, dtype="bfloat16")
    assert {p.dtype for p in policy.parameters()} == {torch.bfloat16}
    tokens_BLA = case["greedy_token_ids"].view(3, 5, 7)
    chunk = ActionChunk(torch.zeros(3, 5, 7), torch.zeros(3, 5, 7), tokens_BLA)
    log_prob = policy.evaluate(seen, chunk).log_prob_BLD
    assert log_prob.dtype == torch.float32
    error = (log_prob.flatten(1) - case["logprob_greedy_T1.0"]).abs()
    assert error.mean() < 0.05 and error.max() < 0.5
    assert error.max() > 1e-4, "the weights were not rounded to bfloat16"


@pytest.mark.parametrize("variant", ["discrete", "l1_noproprio", "l1_proprio", "film_l1_proprio"])
@pytest.mark.parametrize("sample", [0, 1])
def test_regression_head_and_film(words: Path, variant: str, sample: int) -> None:
    """The original OpenVLA-OFT's `predict_action`, with component files as they are published."""
    facts, case = facts_of("libero_l1_film"), load_file(GOLDEN / "libero_l1_film.safetensors")
    if "l1" in variant:
        add_component(words, "action_head", golden_component("libero_l1_action_head"))
    if variant.endswith("l1_proprio"):
        add_component(words, "proprio_projector", golden_component("libero_l1_proprio_projector"))
    if "film" in variant:
        towers = film_towers()
        assert list(towers) and set(towers) == set(facts["film_full_state_dict_names"])
        add_component(words, "vision_backbone", towers)
    policy = golden_policy(words, facts)
    images = seen_as(policy, case[f"input.pixel_values.{sample}"].unflatten(1, (-1, 6)))
    proprio = case[f"input.state_raw.{sample}"][None].float()
    seen = seeing(images, (instruction(facts["prompts"][sample]),), proprio)
    with torch.no_grad():
        inputs = policy.inputs(seen, 56)
        hidden = policy.model(inputs, 56)
    close(hidden.actions_BKE, case[f"{variant}.action_hidden_states.{sample}"])
    if variant == "discrete":
        tokens = policy.model.language_model.lm_head(hidden.actions_BKE).argmax(-1)
        assert torch.equal(tokens, case[f"discrete.argmax_full_vocab_token_ids.{sample}"])
        actions = policy.units.unnormalise(policy.codec.decode(tokens.view(8, 7)))
        close(actions, case[f"discrete.actions_unnorm.{sample}"], atol=1e-9)
        return
    if policy.processor.proprio is not None:
        close(inputs.proprio_BP[0].double(), case[f"input.state_normalized.{sample}"], atol=1e-6)
    chunk = policy.act(seen, temperature=0.0)
    close(chunk.actions_BLA[0].double(), case[f"{variant}.actions_unnorm.{sample}"])
    close(policy.model.action_head(hidden.actions_BKE)[0].detach(), case[f"{variant}.actions_normalized.{sample}"])


def test_policy_gradients(words: Path) -> None:
    """The clipped loss of two trajectories of two chunks, and its gradients, equal the reference's update."""
    facts = facts_of("policy_update")
    update = load_file(GOLDEN / "policy_update.safetensors")
    policy = golden_policy(words, {**facts, "unnorm_key": "bridge_dataset"})
    mask = update["response_mask"]
    losses = []
    for i in range(2):
        prompts = rows(update["input_ids"][i], update["attention_mask"][i])
        images = seen_as(policy, update["pixel_values"][i][:, None])
        seen = seeing(images, tuple(instruction(ids) for ids in prompts))
        empty = torch.zeros(2, 5, 7)
        chunk = ActionChunk(empty, empty, update["responses"][i].view(2, 5, 7))
        found = policy.evaluate(seen, chunk, temperature=facts["temperature"])
        log_prob, entropy = found.log_prob_BLD, found.entropy_BLD
        chosen = log_prob.flatten()
        close(chosen.detach() * mask[i], update["old_log_probs_current_policy"][i])
        close(entropy.detach().flatten() * mask[i], update["entropy"][i])
        ratio = (chosen - update["old_log_probs"][i]).exp()
        clipped = ratio.clamp(1 - facts["clip_low"], 1 + facts["clip_high"])
        advantage = update["advantages"][i]
        token_losses = torch.maximum(-advantage * ratio, -advantage * clipped)
        losses.append(token_losses[mask[i]].mean())
        assert losses[-1].item() == pytest.approx(facts["per_traj_pg_loss"][i], abs=1e-4)
    torch.stack(losses).mean().backward()
    gradients = {name: parameter.grad for name, parameter in policy.model.named_parameters()}
    for name, wanted in update.items():
        if name.startswith("grad::"):
            found = gradients[name.removeprefix("grad::")]
            torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-5)
    assert sorted(n for n, g in gradients.items() if g is None) == sorted(facts["params_without_grad"])
    present = [g for g in gradients.values() if g is not None]
    norm = torch.stack([g.norm() for g in present]).norm().item()
    assert norm == pytest.approx(facts["grad_norm"], rel=1e-3)
    assert facts["pad_token_id"] == policy.model.shape.effective_vocabulary == PAD_TOKEN
