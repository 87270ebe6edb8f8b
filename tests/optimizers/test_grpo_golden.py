"""GRPO against numbers of the public reference implementation (advantages, clipped loss, its gradient)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from gymnast_optimizers.grpo import GRPO, k3

GOLDEN = Path(__file__).parents[1] / "golden" / "grpo"


def golden(name: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    return load_file(GOLDEN / f"{name}.safetensors"), json.loads((GOLDEN / f"{name}.json").read_text())


def close(actual: Tensor, expected: Tensor, atol: float = 1e-6) -> None:
    torch.testing.assert_close(actual, expected.to(actual.dtype), atol=atol, rtol=0)


@pytest.mark.parametrize("scale", [1, 5])
def test_advantages(scale: int) -> None:
    tensors, facts = golden("grpo")
    optimizer = GRPO(GRPO.Config(reward_scale=float(scale)))
    actual = torch.zeros(25)
    for group in set(facts["uid"]):
        members = [i for i, uid in enumerate(facts["uid"]) if uid == group]
        rewards_1K = tensors["rewards"][members][None]
        actual[members] = optimizer.advantages(rewards_1K, torch.ones_like(rewards_1K, dtype=torch.bool))[0]
    close(actual, tensors[f"advantage_scalar_coef{scale}"])


@pytest.mark.parametrize(
    ("average", "value", "gradient"),
    [
        ("trajectory", "pg_loss_mean_over_trajectories", "grad_log_prob_trajmean"),
        ("token", "pg_loss_global_token_mean", "grad_log_prob_global"),
    ],
)
def test_loss_and_gradient(average: str, value: str, gradient: str) -> None:
    tensors, facts = golden("grpo")
    log_prob_BS = tensors["log_prob"].requires_grad_()
    optimizer = GRPO(GRPO.Config(loss_average=average))
    loss = optimizer.loss(
        log_prob_BS,
        tensors["old_log_prob"],
        tensors["advantage_scalar_coef5"],
        tensors["response_mask"],
    )
    loss.value.backward()
    assert loss.value.item() == pytest.approx(facts[value], abs=1e-6)
    close(log_prob_BS.grad, tensors[gradient])
    if average == "token":
        assert loss.metrics["clip_fraction"] == pytest.approx(facts["clipfrac_global"], abs=1e-6)
        assert -loss.metrics["log_ratio"] == pytest.approx(facts["ppo_kl_global"], abs=1e-6)


def test_loss_of_each_trajectory() -> None:
    tensors, _ = golden("grpo")
    optimizer = GRPO()
    for i, expected in enumerate(tensors["per_trajectory_pg_loss"].tolist()):
        row = slice(i, i + 1)
        loss = optimizer.loss(
            tensors["log_prob"][row],
            tensors["old_log_prob"][row],
            tensors["advantage_scalar_coef5"][row],
            tensors["response_mask"][row],
        )
        assert loss.value.item() == pytest.approx(expected, abs=2e-6)


def test_clip_table() -> None:
    tensors, _ = golden("grpo")
    for advantage, ratio, value, clipped, kl in tensors["clip_table"].tolist():
        log_prob_11 = torch.tensor([[ratio]], dtype=torch.float64).log().float()
        loss = GRPO().loss(
            log_prob_11, torch.zeros(1, 1), torch.tensor([advantage]), torch.ones(1, 1, dtype=torch.bool)
        )
        assert loss.value.item() == pytest.approx(value, abs=1e-6)
        assert loss.metrics["clip_fraction"] == clipped
        assert -loss.metrics["log_ratio"] == pytest.approx(kl, abs=1e-6)


def test_k3_is_the_exact_divergence_in_expectation() -> None:
    tensors, _ = golden("grpo")
    logits, reference = tensors["kl_penalty.logprob"], tensors["kl_penalty.ref_logprob"]
    log_p, log_q = logits.log_softmax(-1), reference.log_softmax(-1)
    everything = torch.ones_like(log_p, dtype=torch.bool)
    estimate_B = (log_p.exp() * k3(log_p, log_q, everything)).sum(-1)
    close(estimate_B, (log_p.exp() * (log_p - log_q)).sum(-1))


def test_policy_update() -> None:
    tensors, facts = golden("policy_update")
    rewards_1K = tensors["token_level_rewards"].sum(1)[None]
    optimizer = GRPO(GRPO.Config(group_size=2))
    advantages_K = optimizer.advantages(rewards_1K, torch.ones_like(rewards_1K, dtype=torch.bool))[0]
    close(advantages_K, tensors["advantages"][:, 0])
    mask_BS = tensors["response_mask"]
    new, old = tensors["old_log_probs_current_policy"], tensors["old_log_probs"]
    for i in range(2):
        row = slice(i, i + 1)
        loss = optimizer.loss(new[row], old[row], advantages_K[row], mask_BS[row])
        assert loss.value.item() == pytest.approx(facts["per_traj_pg_loss"][i], abs=1e-6)
        assert loss.metrics["clip_fraction"] == pytest.approx(facts["per_traj_clipfrac"][i], abs=1e-6)
        assert -loss.metrics["log_ratio"] == pytest.approx(facts["per_traj_ppo_kl"][i], abs=1e-6)
    both = optimizer.loss(new, old, advantages_K, mask_BS)
    assert both.value.item() == pytest.approx(facts["mean_pg_loss"], abs=1e-6)
