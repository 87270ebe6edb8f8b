"""GRPO against numbers of the public reference implementation (advantages, clipped loss, its gradient)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from made import judged, minibatch, numbers
from safetensors.torch import load_file
from torch import Tensor

from gymnast_core.learning import Minibatch
from gymnast_optimizers.grpo import GRPO
from gymnast_optimizers.surrogate import k3

GOLDEN = Path(__file__).parents[1] / "golden" / "grpo"


def golden(name: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    return load_file(GOLDEN / f"{name}.safetensors"), json.loads((GOLDEN / f"{name}.json").read_text())


def close(actual: Tensor, expected: Tensor, atol: float = 1e-6) -> None:
    torch.testing.assert_close(actual, expected.to(actual.dtype), atol=atol, rtol=0)


def flat(new: Tensor, old: Tensor, advantages_B: Tensor, mask: Tensor) -> Minibatch:
    """A minibatch of the reference's flat factors (B, S·D): they are masked one by one, so each is an action here."""
    return minibatch(new[..., None], old[..., None], advantages_B, mask.bool())


@pytest.mark.parametrize("scale", [1, 5])
def test_advantages(scale: int) -> None:
    tensors, facts = golden("grpo")
    optimizer = GRPO(GRPO.Config(reward_scale=float(scale)))
    actual = torch.zeros(25)
    for group in set(facts["uid"]):
        members = [i for i, uid in enumerate(facts["uid"]) if uid == group]
        groups = judged([tensors["rewards"][members].tolist()])
        actual[members] = optimizer.advantages(groups).advantages_BS[:, 0]
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
        flat(log_prob_BS, tensors["old_log_prob"], tensors["advantage_scalar_coef5"], tensors["response_mask"])
    )
    loss.mean.backward()
    assert loss.mean.item() == pytest.approx(facts[value], abs=1e-6)
    close(log_prob_BS.grad, tensors[gradient])
    if average == "token":
        assert numbers(loss)["clip_fraction"] == pytest.approx(facts["clipfrac_global"], abs=1e-6)
        assert -numbers(loss)["log_ratio"] == pytest.approx(facts["ppo_kl_global"], abs=1e-6)


@pytest.mark.parametrize("average", ["trajectory", "token"])
def test_whole_actions_give_what_their_factors_give(average: str) -> None:
    """The same numbers as actions of 7 factors, in the reference's order."""
    tensors, facts = golden("grpo")
    optimizer, dim = GRPO(GRPO.Config(loss_average=average)), facts["action_dim"]
    mask = tensors["response_mask"].bool()
    whole = mask.unflatten(1, (-1, dim))
    rows = (whole == whole[..., :1]).all((1, 2))
    assert rows.sum() > 10
    parts = [tensors[name][rows] for name in ("log_prob", "old_log_prob", "advantage_scalar_coef5")]
    new, old = (part.unflatten(1, (-1, dim)) for part in parts[:2])
    loss = optimizer.loss(minibatch(new, old, parts[2], whole[rows][..., 0]))
    expected = optimizer.loss(flat(*parts, mask[rows]))
    assert loss.total.item() == pytest.approx(expected.total.item(), abs=1e-5)
    assert float(loss.weight) == float(expected.weight)
    assert numbers(loss) == pytest.approx(numbers(expected), abs=1e-6)


def test_loss_of_each_trajectory() -> None:
    tensors, _ = golden("grpo")
    optimizer = GRPO()
    for i, expected in enumerate(tensors["per_trajectory_pg_loss"].tolist()):
        row = slice(i, i + 1)
        loss = optimizer.loss(
            flat(
                tensors["log_prob"][row],
                tensors["old_log_prob"][row],
                tensors["advantage_scalar_coef5"][row],
                tensors["response_mask"][row],
            )
        )
        assert loss.mean.item() == pytest.approx(expected, abs=2e-6)


def test_clip_table() -> None:
    tensors, _ = golden("grpo")
    for advantage, ratio, value, clipped, kl in tensors["clip_table"].tolist():
        log_prob_11 = torch.tensor([[ratio]], dtype=torch.float64).log().float()
        loss = GRPO().loss(flat(log_prob_11, torch.zeros(1, 1), torch.tensor([advantage]), torch.ones(1, 1)))
        assert loss.mean.item() == pytest.approx(value, abs=1e-6)
        assert numbers(loss)["clip_fraction"] == clipped
        assert -numbers(loss)["log_ratio"] == pytest.approx(kl, abs=1e-6)


def test_k3_is_the_exact_divergence_in_expectation() -> None:
    tensors, _ = golden("grpo")
    logits, reference = tensors["kl_penalty.logprob"], tensors["kl_penalty.ref_logprob"]
    log_p, log_q = logits.log_softmax(-1), reference.log_softmax(-1)
    everything = torch.ones_like(log_p, dtype=torch.bool)
    estimate_B = (log_p.exp() * k3(log_p, log_q, everything)).sum(-1)
    close(estimate_B, (log_p.exp() * (log_p - log_q)).sum(-1))


def test_policy_update() -> None:
    tensors, facts = golden("policy_update")
    optimizer = GRPO(GRPO.Config(group_size=2))
    groups = judged([tensors["token_level_rewards"].sum(1).tolist()])
    advantages_K = optimizer.advantages(groups).advantages_BS[:, 0]
    close(advantages_K, tensors["advantages"][:, 0])
    mask_BS = tensors["response_mask"]
    new, old = tensors["old_log_probs_current_policy"], tensors["old_log_probs"]
    for i in range(2):
        row = slice(i, i + 1)
        loss = optimizer.loss(flat(new[row], old[row], advantages_K[row], mask_BS[row]))
        assert loss.mean.item() == pytest.approx(facts["per_traj_pg_loss"][i], abs=1e-6)
        assert numbers(loss)["clip_fraction"] == pytest.approx(facts["per_traj_clipfrac"][i], abs=1e-6)
        assert -numbers(loss)["log_ratio"] == pytest.approx(facts["per_traj_ppo_kl"][i], abs=1e-6)
    both = optimizer.loss(flat(new, old, advantages_K, mask_BS))
    assert both.mean.item() == pytest.approx(facts["mean_pg_loss"], abs=1e-6)
