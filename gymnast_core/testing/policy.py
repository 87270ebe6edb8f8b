"""The contract of policies."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from gymnast_core.errors import GymnastError
from gymnast_core.interfaces import Policy
from gymnast_core.testing.component import can_save, check_component, reloaded
from gymnast_core.testing.contract import Contract, expect_close, instance, raises, tensors_in
from gymnast_core.testing.making import make_tasks, observe, seeded
from gymnast_core.types import ActionChunk, Observation, Task


def check_policy(
    policy: Policy | Callable[[], Policy],
    *,
    tasks: Sequence[Task] | None = None,
    image_size: int = 64,
    proprio_dim: int | None = None,
    tolerance: float = 1e-3,
    reload: Callable[[Path], Policy] | None = None,
    device: str | None = None,
) -> list[str]:
    """Check `act`, `evaluate` and `save`, in eval mode, which is how policies are trained here.

    `device` is where the policy is put first, as a run does; observations and generators come from the CPU anyway.

    `tolerance` (nats) bounds how log-probabilities differ between batch sizes and from `act` to `evaluate`.
    `reload` builds the policy from a saved folder; by default its `Config` is given `checkpoint=FOLDER`.

    A policy whose log-probabilities are all NaN is for evaluation only: `act` at temperature 0 is checked, and that
    `evaluate` refuses.
    """
    subject = instance(policy)
    contract = Contract(subject, Policy)
    observation = observe(tasks or make_tasks(3, image_size), proprio_dim)
    was_training = subject.training
    if device is not None:
        subject.to(device)
    subject.eval()
    try:
        for name in ("chunk_length", "action_dim"):
            value = getattr(subject, name, None)
            contract.expect(isinstance(value, int) and value >= 1, name, "a whole number from 1", repr(value))
        if bool(subject.act(observation, temperature=0.0, generator=seeded(5)).log_prob_BLD.isnan().all()):
            _check_evaluation_only(contract, subject, observation, tolerance)
            return contract.verified
        weights = _weights(subject)
        for temperature in (1.0, 0.7):
            _check_act(contract, subject, observation, temperature, tolerance)
        _check_greedy(contract, subject, observation, tolerance)
        _check_gradient(contract, subject, observation)
        same = _weights(subject) == weights
        contract.expect(same, "evaluate", "weights and buffers that only training changes", "other values")
        contract.expect(can_save(subject), "save", "a policy that can be saved: every run ends with it", "no save()")
        _check_policy_save(contract, subject, observation, tolerance, reload)
        check_component(contract, subject)
    finally:
        subject.train(was_training)
    return contract.verified


def _check_act(
    contract: Contract, policy: Policy, observation: Observation, temperature: float, tolerance: float
) -> None:
    def act(seed: int) -> ActionChunk:
        return policy.act(observation, temperature=temperature, generator=seeded(seed))

    with contract.untouched("act", observation=observation):
        chunk = act(5)
    shape = (len(observation.instructions), policy.chunk_length)
    contract.tensor(chunk.actions_BLA, "act", "actions_BLA", (*shape, policy.action_dim), torch.float32)
    factors = (*shape, chunk.log_prob_BLD.shape[-1])
    contract.expect(factors[2] in (1, policy.action_dim), "act", "D = 1 or A factors", factors[2])
    contract.tensor(chunk.log_prob_BLD, "act", "log_prob_BLD", factors, torch.float32)
    contract.expect(not chunk.log_prob_BLD.requires_grad, "act", "no gradients", "log_prob that requires grad")
    if chunk.tokens_BLD is not None:
        contract.tensor(chunk.tokens_BLD, "act", "tokens_BLD", factors, torch.int64)
        contract.expect(bool((chunk.log_prob_BLD <= 1e-5).all()), "act", "log_prob <= 0", "positive values")
    same = all(map(torch.equal, tensors_in(chunk), tensors_in(act(5))))
    contract.expect(same, "act", "the same chunk from the same seed", "another chunk")
    contract.verified.append(f"act is repeatable under a seed at temperature {temperature}")
    with contract.untouched("evaluate", observation=observation, chunk=chunk), torch.no_grad():
        log_prob, entropy = policy.evaluate(observation, chunk, temperature=temperature)
    contract.expect(log_prob.shape == factors, "evaluate", f"log_prob of shape {factors}", tuple(log_prob.shape))
    contract.expect(entropy.shape == factors, "evaluate", f"entropy of shape {factors}", tuple(entropy.shape))
    contract.expect(bool(torch.isfinite(entropy).all()), "evaluate", "finite entropy", entropy)
    expect_close(contract, "evaluate", "act's log-probabilities", log_prob, chunk.log_prob_BLD, tolerance)
    if chunk.tokens_BLD is not None:
        contract.expect(bool((entropy >= -1e-5).all()), "evaluate", "entropy >= 0 of tokens", "negative values")
    batch = len(observation.instructions)
    for what, rows in (("on its own", [0]), ("in reverse order", list(reversed(range(batch))))):
        with torch.no_grad():
            found, _ = policy.evaluate(_rows(observation, rows), _chunk_rows(chunk, rows), temperature=temperature)
        expect_close(contract, "evaluate", f"the same in any batch, here {what}", found, log_prob[rows], tolerance)
    contract.verified.append(f"evaluate agrees with act at temperature {temperature}, in any batch")


def _check_greedy(contract: Contract, policy: Policy, observation: Observation, tolerance: float) -> None:
    first, second = (policy.act(observation, temperature=0.0, generator=seeded(s)) for s in (1, 2))
    same = torch.equal(first.actions_BLA, second.actions_BLA)
    contract.expect(same, "act", "one most likely action at temperature 0", "different actions")
    with torch.no_grad():
        log_prob, _ = policy.evaluate(observation, first, temperature=1.0)
    expected = "log-probabilities at temperature 1 when acting at 0"
    expect_close(contract, "act", expected, first.log_prob_BLD, log_prob, tolerance)
    contract.verified.append("temperature 0 is repeatable")


def _check_gradient(contract: Contract, policy: Policy, observation: Observation) -> None:
    chunk = policy.act(observation, generator=seeded(6))
    log_prob, entropy = policy.evaluate(observation, chunk)
    contract.expect(log_prob.requires_grad, "evaluate", "a differentiable log_prob", "one without gradient")
    contract.expect(entropy.requires_grad, "evaluate", "a differentiable entropy", "one without gradient")
    parameters = [parameter for parameter in policy.module().parameters() if parameter.requires_grad]
    found = [g for g in torch.autograd.grad(log_prob.sum(), parameters, allow_unused=True) if g is not None]
    finite = all(bool(torch.isfinite(gradient).all()) for gradient in found)
    flows = finite and any(bool((gradient != 0).any()) for gradient in found)
    contract.expect(flows, "evaluate", "finite gradients that reach module()'s parameters", "none, or NaN")
    contract.verified.append("gradients reach the parameters")


def _check_policy_save(
    contract: Contract,
    policy: Policy,
    observation: Observation,
    tolerance: float,
    reload: Callable[[Path], Policy] | None,
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        policy.save(Path(folder))
        again = reloaded(contract, policy, Path(folder), reload)
        if again is None:
            return
        chunk = policy.act(observation, generator=seeded(7))
        again.eval().to(chunk.log_prob_BLD.device)
        with torch.no_grad():
            log_prob, _ = again.evaluate(observation, chunk)
    expect_close(contract, "save", "the same policy when loaded", log_prob, chunk.log_prob_BLD, tolerance)
    contract.verified.append("a saved policy loads as the same policy")


def _check_evaluation_only(contract: Contract, policy: Policy, observation: Observation, tolerance: float) -> None:
    def act(seen: Observation, seed: int = 5) -> ActionChunk:
        return policy.act(seen, temperature=0.0, generator=seeded(seed))

    with contract.untouched("act", observation=observation):
        chunk = act(observation)
    batch = len(observation.instructions)
    shape = (batch, policy.chunk_length, policy.action_dim)
    contract.tensor(chunk.actions_BLA, "act", "actions_BLA", shape, torch.float32)
    expect_close(
        contract, "act", "one action at temperature 0", act(observation, 6).actions_BLA, chunk.actions_BLA, 0.0
    )
    contract.verified.append("for evaluation only: no likelihood; temperature 0 is repeatable")
    for what, rows in (("on its own", [0]), ("in reverse order", list(reversed(range(batch))))):
        found = act(_rows(observation, rows)).actions_BLA
        expect_close(contract, "act", f"the same in any batch, here {what}", found, chunk.actions_BLA[rows], tolerance)
    contract.verified.append("act does not depend on the batch")
    expected = "a GymnastError, because act's log-probabilities are NaN (or let act return numbers)"
    with raises(contract, "evaluate", expected, GymnastError):
        policy.evaluate(observation, chunk)
    contract.verified.append("evaluate refuses")
    check_component(contract, policy)


def _chunk_rows(chunk: ActionChunk, rows: list[int]) -> ActionChunk:
    tokens = None if chunk.tokens_BLD is None else chunk.tokens_BLD[rows]
    return ActionChunk(chunk.actions_BLA[rows], chunk.log_prob_BLD[rows], tokens)


def _rows(observation: Observation, rows: list[int]) -> Observation:
    return dataclasses.replace(
        observation,
        images_BVHWC=observation.images_BVHWC[rows],
        instructions=tuple(observation.instructions[row] for row in rows),
        proprio_BP=None if observation.proprio_BP is None else observation.proprio_BP[rows],
    )


def _weights(policy: Policy) -> list[tuple[float, float]]:
    """Two sums of every parameter and buffer: a copy of a large policy would not fit beside it."""
    return [
        (float(tensor.detach().float().sum()), float(tensor.detach().float().abs().sum()))
        for tensor in [*policy.parameters(), *policy.buffers()]
    ]
