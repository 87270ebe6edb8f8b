"""The contract of policies."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from gymnast_core.errors import GymnastError
from gymnast_core.interfaces import Policy
from gymnast_core.rollouts.side_by_side import side_by_side
from gymnast_core.runs.snapshot import load_latest_snapshot, save_snapshot
from gymnast_core.testing.component import can_save, check_component, reloaded
from gymnast_core.testing.contract import Contract, expect_close, instance, raises, tensors_in
from gymnast_core.testing.making import make_tasks, observe, seeded
from gymnast_core.testing.trainable import check_trainable, check_training_loss, make_episodes
from gymnast_core.types import ActionChunk, Episode, Evaluation, Needs, Observation, Task

SMALL = 2**30
"""Bytes of weights up to which they are taken through a snapshot."""


def check_policy(
    policy: Policy | Callable[[], Policy],
    *,
    tasks: Sequence[Task] | None = None,
    episodes: Sequence[Episode] | None = None,
    image_size: int = 64,
    tolerance: float = 1e-3,
    reload: Callable[[Path], Policy] | None = None,
    device: str | None = None,
) -> list[str]:
    """Check `needs`, `act`, `evaluate`, `state_dict`, `save` and `training_loss`, in eval mode, which is how policies
    are trained here. Lines that begin with "not shown" say what could not be seen of this policy.

    It is shown what it `needs` of `tasks`, and its loss is computed on `episodes`; both are made up unless given.
    `device` is where the policy is put first, as a run does; observations and generators come from the CPU anyway.

    `tolerance` (nats) bounds how log-probabilities differ between batches and from `act` to `evaluate`; it is also the
    share by which losses and gradients of parts may differ from those of the whole. `reload` builds the policy from a
    saved folder; by default its `Config` is given `checkpoint=FOLDER`.

    A policy whose log-probabilities are all NaN is for evaluation only: `act` at temperature 0 is checked, and that
    `evaluate` refuses.
    """
    subject = instance(policy)
    contract = Contract(subject, Policy)
    needs = _check_needs(contract, subject)
    observation = observe(tasks or _tasks(needs, image_size), needs)
    was_training = subject.training
    if device is not None:
        subject.to(device)
    subject.eval()
    try:
        for name in ("chunk_length", "action_dim"):
            value = getattr(subject, name, None)
            contract.expect(isinstance(value, int) and value >= 1, name, "a whole number from 1", repr(value))
        agrees = needs.actions in (None, subject.action_dim)
        contract.expect(agrees, "needs", f"actions of width {subject.action_dim}, its action_dim, or None", needs)
        # The first of all: who overwrites what it is shown would find its own values from the second one on.
        with contract.untouched("act", observation=observation):
            chunk = subject.act(observation, temperature=0.0, generator=seeded(5))
        if bool(chunk.log_prob_BLD.isnan().all()):
            _check_evaluation_only(contract, subject, observation, tolerance)
        else:
            made = episodes or make_episodes(needs, subject.action_dim, subject.chunk_length, image_size)
            _check_trainable(contract, subject, observation, tolerance, made, episodes is not None)
            _check_policy_save(contract, subject, observation, tolerance, reload)
        check_component(contract, subject)
    finally:
        subject.train(was_training)
    return contract.verified


def _check_trainable(
    contract: Contract,
    policy: Policy,
    observation: Observation,
    tolerance: float,
    episodes: Sequence[Episode],
    given: bool,
) -> None:
    """What a policy owes that knows how likely its actions are."""
    weights = _weights(policy)
    for temperature in (1.0, 0.7):
        _check_act(contract, policy, observation, temperature, tolerance)
    _check_greedy(contract, policy, observation, tolerance)
    _check_threads(contract, policy, observation, tolerance)
    _check_mixed(contract, policy, observation, tolerance)
    _check_features(contract, policy, observation, tolerance)
    _check_gradient(contract, policy, observation)
    _check_sight(contract, policy, observation)
    check_trainable(contract, policy, episodes, tolerance=tolerance, given=given)
    if type(policy).imitation_loss is not Policy.imitation_loss:
        check_training_loss(contract, policy, episodes, method="imitation_loss", tolerance=tolerance, given=given)
    same = _weights(policy) == weights
    contract.expect(same, "evaluate", "weights and buffers that only training changes", "other values")
    contract.expect(can_save(policy), "save", "a policy that can be saved: every run ends with it", "no save()")
    _check_state(contract, policy, observation)


def _check_needs(contract: Contract, policy: Policy) -> Needs:
    with contract.working("needs", "a class method that tells the Needs of a config"):
        needs, own = type(policy).needs(policy.config), policy.needs(policy.config)
    contract.expect(isinstance(needs, Needs), "needs", "Needs", needs)
    contract.expect(own == needs, "needs", f"the same of the built policy as of its class: {needs}", own)
    cameras = needs.cameras
    sound = cameras >= 1 if isinstance(cameras, int) else len(set(cameras)) == len(cameras) >= 1
    contract.expect(sound, "needs", "cameras as a number from 1, or as names that differ", cameras)
    contract.expect(needs.history >= 1, "needs", "a history of 1 frame or more", needs.history)
    contract.expect(needs.proprio is None or needs.proprio >= 1, "needs", "1 reading or more, or None", needs.proprio)
    shown = f"{needs.camera_count} cameras, {needs.history} frames, {needs.proprio or 'no'} readings"
    contract.verified.append(f"it is shown what it needs: {shown}")
    return needs


def _tasks(needs: Needs, image_size: int) -> list[Task]:
    tasks = make_tasks(3, image_size, cameras=needs.cameras, proprio_dim=needs.proprio, context=needs.history)
    # A longer text beside shorter ones: padding must not matter.
    tasks[1] = dataclasses.replace(tasks[1], instruction=f"{tasks[1].instruction} once more")
    return tasks


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
    again = tensors_in(act(5))
    same = len(again) == len(tensors_in(chunk)) and all(map(torch.equal, tensors_in(chunk), again))
    contract.expect(same, "act", "the same chunk from the same seed", "another chunk")
    contract.verified.append(f"act is repeatable under a seed at temperature {temperature}")
    with contract.untouched("evaluate", observation=observation, chunk=chunk):
        found = _evaluate(contract, policy, observation, chunk, temperature)
    if chunk.tokens_BLD is not None:
        contract.expect(bool((found.entropy_BLD >= -1e-5).all()), "evaluate", "entropy >= 0 of tokens", "less")
    expect_close(contract, "evaluate", "act's log-probabilities", found.log_prob_BLD, chunk.log_prob_BLD, tolerance)
    for what, rows in _batches(len(observation.instructions)):
        part = _evaluate(contract, policy, _rows(observation, rows), _chunk_rows(chunk, rows), temperature)
        expected = f"the same in any batch, here {what}"
        for name in ("log_prob_BLD", "entropy_BLD", "features_BF"):
            one, other = getattr(part, name), getattr(found, name)
            if other is not None:
                expect_close(contract, "evaluate", f"{name} {expected}", one, other[rows], tolerance)
    contract.verified.append(f"evaluate agrees with act at temperature {temperature}, in any batch")


@torch.no_grad()
def _evaluate(
    contract: Contract, policy: Policy, observation: Observation, chunk: ActionChunk, temperature: float | Tensor
) -> Evaluation:
    """What `evaluate` returns, if it has the right form."""
    found = policy.evaluate(observation, chunk, temperature=temperature)
    contract.expect(isinstance(found, Evaluation), "evaluate", "an Evaluation", type(found).__name__)
    factors = tuple(chunk.log_prob_BLD.shape)
    contract.tensor(found.log_prob_BLD, "evaluate", "log_prob_BLD", factors, torch.float32)
    contract.tensor(found.entropy_BLD, "evaluate", "entropy_BLD", factors, torch.float32)
    if found.features_BF is not None:
        shape = (len(observation.instructions), found.features_BF.shape[-1])
        contract.tensor(found.features_BF, "evaluate", "features_BF", shape, torch.float32)
    return found


def _check_greedy(contract: Contract, policy: Policy, observation: Observation, tolerance: float) -> None:
    first, second = (policy.act(observation, temperature=0.0, generator=seeded(s)) for s in (1, 2))
    same = torch.equal(first.actions_BLA, second.actions_BLA)
    contract.expect(same, "act", "one most likely action at temperature 0", "different actions")
    found = _evaluate(contract, policy, observation, first, 1.0)
    expected = "log-probabilities at temperature 1 when acting at 0"
    expect_close(contract, "act", expected, first.log_prob_BLD, found.log_prob_BLD, tolerance)
    contract.verified.append("temperature 0 is repeatable")


def _check_threads(contract: Contract, policy: Policy, observation: Observation, tolerance: float) -> None:
    """Of a policy that says it is `concurrent`: two threads get what each gets alone."""
    concurrent = policy.concurrent
    contract.expect(isinstance(concurrent, bool), "concurrent", "True or False", repr(concurrent))
    if not concurrent:
        return

    def act(row: int) -> ActionChunk:
        shown = _rows(observation, [row])
        # One is much darker than another, which even a policy notices that sees little.
        shown = dataclasses.replace(shown, images_BTVHWC=shown.images_BTVHWC // (1 + 2 * row))
        return policy.act(shown, temperature=0.0, generator=seeded(9))

    rows = range(len(observation.instructions))
    alone = [act(row) for row in rows]
    with contract.working("concurrent", "to act in two threads at once"):
        beside = list(side_by_side(lambda row, _: act(row), rows, 2))
    for one, other in zip(beside, alone, strict=True):
        expected = "in two threads at once the log-probabilities that each gets alone"
        expect_close(contract, "concurrent", expected, one.log_prob_BLD, other.log_prob_BLD, tolerance)
    contract.verified.append("two threads may act at once")


def _check_mixed(contract: Contract, policy: Policy, observation: Observation, tolerance: float) -> None:
    """Each row at its own temperature, as in an update on rollouts of several."""
    temperatures = [(1.0, 0.7, 0.0)[row % 3] for row in range(len(observation.instructions))]
    chunks = {t: policy.act(observation, temperature=t, generator=seeded(8)) for t in set(temperatures)}
    rows = [_chunk_rows(chunks[temperature], [row]) for row, temperature in enumerate(temperatures)]
    tokens = [row.tokens_BLD for row in rows if row.tokens_BLD is not None]
    chunk = ActionChunk(
        torch.cat([row.actions_BLA for row in rows]),
        torch.cat([row.log_prob_BLD for row in rows]),
        torch.cat(tokens) if tokens else None,
    )
    each_B = torch.tensor(temperatures, device=chunk.log_prob_BLD.device)
    with contract.untouched("evaluate", temperature=each_B):
        found = _evaluate(contract, policy, observation, chunk, each_B)
    expected = "act's log-probabilities, each row at its own temperature (0 counts as 1)"
    expect_close(contract, "evaluate", expected, found.log_prob_BLD, chunk.log_prob_BLD, tolerance)
    contract.verified.append("evaluate takes one temperature a row")


def _check_features(contract: Contract, policy: Policy, observation: Observation, tolerance: float) -> None:
    """Features are of the observation: a critic must not see the action that it is a baseline for."""
    chunks = [policy.act(observation, generator=seeded(seed)) for seed in (6, 7)]
    first, second = (_evaluate(contract, policy, observation, chunk, 1.0).features_BF for chunk in chunks)
    if first is None or second is None:
        contract.verified.append("it shows no features to critics")
        return
    expect_close(contract, "evaluate", "features_BF that do not depend on the chunk", second, first, tolerance)
    contract.verified.append("features are of the observation alone")


def _check_gradient(contract: Contract, policy: Policy, observation: Observation) -> None:
    found = policy.evaluate(observation, policy.act(observation, generator=seeded(6)))
    for name in ("log_prob_BLD", "entropy_BLD"):
        contract.expect(getattr(found, name).requires_grad, "evaluate", f"a differentiable {name}", "no gradient")
    parameters = [parameter for parameter in policy.module().parameters() if parameter.requires_grad]
    gradients = torch.autograd.grad(found.log_prob_BLD.sum(), parameters, allow_unused=True)
    reached = [gradient for gradient in gradients if gradient is not None]
    finite = all(bool(torch.isfinite(gradient).all()) for gradient in reached)
    flows = finite and any(bool((gradient != 0).any()) for gradient in reached)
    contract.expect(flows, "evaluate", "finite gradients that reach module()'s parameters", "none, or NaN")
    contract.verified.append("gradients reach the parameters")


def _check_sight(contract: Contract, policy: Policy, observation: Observation) -> None:
    """Say which of its inputs make no difference: a policy may ignore one, but then should not need it."""
    chunk = policy.act(observation, temperature=0.0, generator=seeded(5))
    before = _evaluate(contract, policy, observation, chunk, 1.0).log_prob_BLD
    for what, changed in _changes(observation):
        after = _evaluate(contract, policy, changed, chunk, 1.0).log_prob_BLD
        if torch.equal(before, after):
            contract.verified.append(f"not shown: that {what} matters to it")


def _changes(observation: Observation) -> Iterator[tuple[str, Observation]]:
    for place, camera in enumerate(observation.cameras):
        images_BTVHWC = observation.images_BTVHWC.clone()
        images_BTVHWC[:, :, place] = 255 - images_BTVHWC[:, :, place]
        yield f"the camera {camera}", dataclasses.replace(observation, images_BTVHWC=images_BTVHWC)
    if observation.images_BTVHWC.shape[1] > 1:
        images_BTVHWC = observation.images_BTVHWC.clone()
        images_BTVHWC[:, :-1] = 255 - images_BTVHWC[:, :-1]
        yield "what it saw before", dataclasses.replace(observation, images_BTVHWC=images_BTVHWC)
    if observation.proprio_BTP is not None:
        yield "proprioception", dataclasses.replace(observation, proprio_BTP=0.5 * observation.proprio_BTP - 0.1)
    instructions = tuple(f"do not {text}" for text in observation.instructions)
    yield "the instruction", dataclasses.replace(observation, instructions=instructions)


def _check_state(contract: Contract, policy: Policy, observation: Observation) -> None:
    """Weights and all else go through a snapshot, and come back over other ones."""
    if sum(tensor.numel() * tensor.element_size() for tensor in policy.parameters()) > SMALL:
        contract.verified.append("not shown: that its weights come back from a snapshot, since they are too large")
        return
    chunk = policy.act(observation, generator=seeded(9))
    before = _evaluate(contract, policy, observation, chunk, 1.0).log_prob_BLD
    with tempfile.TemporaryDirectory() as folder:
        with contract.working("state_dict", "nested dicts and lists of tensors, numbers, strings and None"):
            save_snapshot(Path(folder), 0, {"state": policy.state_dict()})
        stored = (load_latest_snapshot(Path(folder)) or {})["state"]
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.mul_(0.5).add_(0.01)
    with contract.working("load_state_dict", "to take over what a snapshot holds of state_dict()"):
        policy.load_state_dict(stored)
    after = _evaluate(contract, policy, observation, chunk, 1.0).log_prob_BLD
    contract.expect(torch.equal(before, after), "load_state_dict", "the policy as it was", "another one")
    contract.verified.append("its weights go through a snapshot and back")


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
        needs, own = again.needs(again.config), policy.needs(policy.config)
        contract.expect(needs == own, "save", f"a policy that needs the same when loaded: {own}", needs)
        chunk = policy.act(observation, generator=seeded(7))
        again.eval().to(chunk.log_prob_BLD.device)
        found = _evaluate(contract, again, observation, chunk, 1.0)
    expect_close(contract, "save", "the same policy when loaded", found.log_prob_BLD, chunk.log_prob_BLD, tolerance)
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
    for what, rows in _batches(batch):
        found = act(_rows(observation, rows)).actions_BLA
        expect_close(contract, "act", f"the same in any batch, here {what}", found, chunk.actions_BLA[rows], tolerance)
    contract.verified.append("act does not depend on the batch")
    expected = "a GymnastError, because act's log-probabilities are NaN (or let act return numbers)"
    with raises(contract, "evaluate", expected, GymnastError):
        policy.evaluate(observation, chunk)
    contract.verified.append("evaluate refuses")


def _batches(count: int) -> Iterator[tuple[str, list[int]]]:
    """Other batches of the same rows."""
    for row in range(count):
        yield "on its own", [row]
    yield "in reverse order", list(reversed(range(count)))
    yield "beside itself and one other", [0, 0, count - 1]


def _chunk_rows(chunk: ActionChunk, rows: list[int]) -> ActionChunk:
    tokens = None if chunk.tokens_BLD is None else chunk.tokens_BLD[rows]
    return ActionChunk(chunk.actions_BLA[rows], chunk.log_prob_BLD[rows], tokens)


def _rows(observation: Observation, rows: list[int]) -> Observation:
    return dataclasses.replace(
        observation,
        images_BTVHWC=observation.images_BTVHWC[rows],
        instructions=tuple(observation.instructions[row] for row in rows),
        proprio_BTP=None if observation.proprio_BTP is None else observation.proprio_BTP[rows],
    )


def _weights(policy: Policy) -> list[tuple[float, float]]:
    """Two sums of every parameter and buffer: a copy of a large policy would not fit beside it."""
    return [
        (float(tensor.detach().float().sum()), float(tensor.detach().float().abs().sum()))
        for tensor in [*policy.parameters(), *policy.buffers()]
    ]
