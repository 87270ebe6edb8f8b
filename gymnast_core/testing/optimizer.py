"""The contract of optimizers."""

from __future__ import annotations

import copy
import math
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gymnast_core.interfaces import Optimizer, Parts, Policy
from gymnast_core.learning import Advantages, Judged
from gymnast_core.runs.snapshot import load_latest_snapshot, save_snapshot
from gymnast_core.testing.component import check_component
from gymnast_core.testing.contract import Contract, expect_close, instance, tensors_in
from gymnast_core.testing.loss_sums import expect_sum
from gymnast_core.testing.made_judged import Leaves, Material, StandInPolicy, decided, judge, reordered, tasks_for
from gymnast_core.testing.making import seeded, uniform
from gymnast_core.training.tally import Tally
from gymnast_core.types import Rollout

GROUPS = 5
LARGEST_MINIBATCH = 6


def check_optimizer(
    optimizer: Optimizer | Callable[[], Optimizer],
    *,
    group_relative: bool | None = None,
    scale_invariant: bool | None = None,
    tolerance: float = 1e-3,
    policy: Policy | None = None,
    parts: Parts | None = None,
) -> list[str]:
    """Check `extra_modules`, `keep`, `advantages`, `loss`, the gradient steps and `state_dict`.

    Advantages that sum to 0 within a group are taken to be group-relative: shifting the rewards must not change them
    and equal rewards must give 0. If halving the rewards changes nothing in one group, it must not in any.
    `group_relative` and `scale_invariant` say what to demand instead of finding it out. Rewards are successes in
    [0, 1], unless the reward model of `parts` says that they are scores. An optimizer that asks its policy is given
    a small one with features of width 16; give the `policy` that it works with if that one will not do.
    """
    subject = instance(optimizer)
    contract = Contract(subject, Optimizer)
    _check_numbers(contract, subject)
    policy = policy or StandInPolicy()
    tasks = tasks_for(policy)
    parts = replace(parts or Parts(tasks=tasks), policy=policy, optimizer=subject)
    with contract.working("attach", "to keep what it needs of the parts"):
        subject.attach(parts)
    extra = _check_extra_modules(contract, subject, policy)
    group_size = max(subject.group_size, 2)
    trial = _Trial(contract, subject, parts, policy, extra, decided(policy, tasks, GROUPS * group_size), tolerance)
    _check_judged(trial)
    _check_invariances(trial, group_relative, scale_invariant)
    material = trial.material()
    _check_loss(trial, material)
    _check_sums(trial, material)
    _check_gradient_steps(trial)
    # Only a function that builds optimizers knows how to build those that are not `Component(config)`.
    again = optimizer if callable(optimizer) and optimizer is not subject else lambda: type(subject)(subject.config)
    _check_state(trial, material, again)
    check_component(contract, subject)
    return contract.verified


class _Trial:
    """An optimizer with the parts of a run, and rollouts for it."""

    def __init__(
        self,
        contract: Contract,
        optimizer: Optimizer,
        parts: Parts,
        policy: Policy,
        extra: Mapping[str, nn.Module],
        rollouts: Sequence[Rollout],
        tolerance: float,
    ) -> None:
        self.contract, self.optimizer, self.parts, self.policy = contract, optimizer, parts, policy
        self.extra, self.rollouts, self.tolerance = extra, rollouts, tolerance
        self.shape = (GROUPS, len(rollouts) // GROUPS)
        self.values_GK = uniform(self.shape, seed=8) * 0.4 + 0.5
        self._state = copy.deepcopy(optimizer.state_dict())

    @property
    def trained(self) -> list[nn.Parameter]:
        """The parameters of the extra modules that are trained."""
        return [p for module in self.extra.values() for p in module.parameters() if p.requires_grad]

    def judged(self, values_GK: Tensor, junk: Mapping[str, Any] | None = None) -> Judged:
        return judge(self.rollouts[: values_GK.numel()], values_GK, junk)

    def keep(self, judged: Judged) -> Tensor:
        """Which groups are kept, checked for its form."""
        with self.contract.working("keep", "an answer for each group"):
            kept = self.optimizer.keep(judged)
        groups = len(judged.rewards) // judged.group_size
        self.contract.tensor(kept, "keep", "kept groups", (groups,), torch.bool)
        return kept

    def advantages(self, judged: Judged) -> Advantages:
        """What the optimizer finds from its first state on, checked for its form."""
        contract, count = self.contract, len(judged.rollouts)
        self.optimizer.load_state_dict(copy.deepcopy(self._state))
        with contract.working("advantages", "an answer for these groups"):
            found = self.optimizer.advantages(judged)
        contract.expect(isinstance(found, Advantages), "advantages", "an `Advantages`", type(found).__name__)
        if count:
            shape = (count, judged.rollouts[0].horizon)
            contract.tensor(found.advantages_BS, "advantages", "advantages_BS", shape, torch.float32)
        rows = [len(tensor) for tensor in (found.advantages_BS, *found.targets.values())]
        contract.expect(rows == [count] * len(rows), "advantages", f"{count} rows in each tensor", rows)
        return found

    def grouped(self, values_GK: Tensor, junk: Mapping[str, Any] | None = None) -> Tensor:
        """The advantages for these rewards, (G, K, S)."""
        return self.advantages(self.judged(values_GK, junk)).advantages_BS.unflatten(0, values_GK.shape)

    def close(self, method: str, expected: str, found: Tensor, wanted: Tensor, tolerance: float | None = None) -> None:
        expect_close(self.contract, method, expected, found, wanted, self.tolerance if tolerance is None else tolerance)

    def material(self) -> Material:
        judged = self.judged(self.values_GK)
        count = len(judged.rollouts)
        rows = list(range(0, count, max(count // LARGEST_MINIBATCH, 1)))[:LARGEST_MINIBATCH]
        return Material(self.policy, judged, self.advantages(judged), rows, self.optimizer.needs_reference)


def _check_numbers(contract: Contract, optimizer: Optimizer) -> None:
    for name in ("group_size", "epochs", "minibatch_size"):
        value = getattr(optimizer, name, None)
        contract.expect(isinstance(value, int) and value > 0, name, "a whole number above 0", value)
    norm = getattr(optimizer, "max_grad_norm", None)
    contract.expect(isinstance(norm, int | float) and norm > 0, "max_grad_norm", "a positive number", norm)
    ratio = optimizer.demonstrations_per_rollout
    contract.expect(isinstance(ratio, int | float) and ratio >= 0, "demonstrations_per_rollout", "a number >= 0", ratio)
    contract.expect(isinstance(optimizer.imitates, bool), "imitates", "true or false", optimizer.imitates)


def _check_extra_modules(contract: Contract, optimizer: Optimizer, policy: Policy) -> Mapping[str, nn.Module]:
    with contract.working("extra_modules", "modules by name"):
        extra = optimizer.extra_modules(policy)
        nn.ModuleDict(extra)
    again = optimizer.extra_modules(policy)
    same = extra.keys() == again.keys() and all(extra[name] is again[name] for name in extra)
    contract.expect(same, "extra_modules", "the same modules whenever it is asked", "other ones")
    policys = {id(parameter) for parameter in policy.parameters()}
    shared = [name for name, module in extra.items() for p in module.parameters() if id(p) in policys]
    contract.expect(not shared, "extra_modules", "no parameter of the policy, which is trained already", shared)
    return extra


def _check_judged(trial: _Trial) -> None:
    """Rows are rows, groups are groups, and what was not judged teaches nothing."""
    contract, values_GK = trial.contract, trial.values_GK
    judged = trial.judged(values_GK)
    with contract.untouched("advantages", judged=judged):
        base = trial.advantages(judged).advantages_BS
        kept = trial.keep(judged)
    groups, size = trial.shape
    order = torch.randperm(size, generator=seeded(9))
    rows = (torch.arange(groups)[:, None] * size + order).flatten().tolist()
    permuted = trial.advantages(reordered(judged, rows)).advantages_BS
    trial.close("advantages", "permuted with their rewards", permuted, base[rows])
    rows = torch.arange(groups * size).reshape(groups, size).flip(0).flatten().tolist()
    backwards = trial.advantages(reordered(judged, rows)).advantages_BS
    trial.close("advantages", "the same in any order of the groups", backwards, base[rows])
    alone = [
        bool(trial.keep(reordered(judged, range(first, first + size)))[0]) for first in range(0, groups * size, size)
    ]
    contract.expect(alone == kept.tolist(), "keep", "the same answer for a group alone as among others", alone)
    contract.verified.append("advantages follow their rollouts")

    holes_GK = values_GK.clone()
    holes_GK[0, 0] = holes_GK[1, 1] = math.nan
    holes_GK[2] = math.nan
    unscored_GK = holes_GK.isnan()
    clean, clean_kept = trial.grouped(holes_GK), trial.keep(trial.judged(holes_GK))
    horizon = trial.rollouts[0].horizon
    for junk in ({"partial": 1.0}, {"step_values_S": torch.full((horizon,), 1e9)}):
        name = next(iter(junk))
        found = trial.grouped(holes_GK, junk)
        contract.expect(bool((found[unscored_GK] == 0).all()), "advantages", "0 for unscored rollouts", found)
        trial.close("advantages", f"unscored rewards ({name}) to be ignored", found, clean, 0.0)
        same = torch.equal(trial.keep(trial.judged(holes_GK, junk)), clean_kept)
        contract.expect(same, "keep", f"unscored rewards ({name}) to be ignored", "another choice of groups")
    contract.expect(not bool(clean_kept[2]), "keep", "a group without any scored rollout to be dropped", "it kept")
    contract.verified.append("unscored rewards are ignored")

    nothing = Judged((), (), size)
    trial.keep(nothing)
    trial.advantages(nothing)
    contract.verified.append("a process without groups is answered, too")
    steps = [replace(r, step_values_S=torch.full((horizon,), (r.value or 0.0) / horizon)) for r in judged.rewards]
    trial.advantages(replace(judged, rewards=tuple(steps)))
    contract.verified.append("rewards of each action are understood")


def _check_invariances(trial: _Trial, relative: bool | None, scale: bool | None) -> None:
    contract, tolerance, values_GK = trial.contract, trial.tolerance, trial.values_GK
    base = trial.grouped(values_GK)
    if relative is None:
        relative = bool((base.sum(1).abs() < tolerance).all())
    if relative:
        shifted = trial.grouped(values_GK + 0.05)
        trial.close("advantages", "no change by a shift of the rewards", shifted, base)
        equal = trial.grouped(torch.full(trial.shape, 0.5))
        contract.expect(bool((equal == 0).all()), "advantages", "0 where all rewards are equal", equal)
        if trial.shape[1] > 2:
            holes_GK = values_GK.clone()
            holes_GK[:, 1] = math.nan
            sums = trial.grouped(holes_GK).sum(1)
            wanted = "a sum of 0 over those rollouts of a group that were scored (the others are no zeros)"
            trial.close("advantages", wanted, sums, torch.zeros_like(sums))
        contract.verified += ["shifting the rewards changes nothing", "equal rewards give 0"]
    halved = trial.grouped(values_GK / 2)
    if scale is None:
        scale = relative and bool(((halved[0] - base[0]).abs() < tolerance).all())
    if scale:
        trial.close("advantages", "no change by a scale of the rewards", halved, base)
        contract.verified.append("scaling the rewards changes nothing")


@dataclass(frozen=True)
class _Learned:
    """What some parts of a minibatch add up to."""

    total: Tensor
    weight: Tensor
    gradients: list[Tensor]
    """Of the leaves, then of the extra modules' parameters."""
    numbers: dict[str, float]


def _learn(
    trial: _Trial,
    material: Material,
    parts: Iterable[Sequence[int]],
    leaves: Leaves,
    advantages_BS: Tensor | None = None,
    junk: float = 0.0,
) -> _Learned:
    """Sum the losses of these parts, each checked for its form."""
    contract, advantages_BS = (
        trial.contract,
        material.advantages.advantages_BS if advantages_BS is None else advantages_BS,
    )
    total, weight, tally = torch.zeros(()), torch.zeros((), dtype=torch.float64), Tally()
    for rows in parts:
        with contract.working("loss", "a `LossSum`"):
            found = trial.optimizer.loss(material.minibatch(rows, leaves, advantages_BS, junk))
        expect_sum(contract, found, f"masked entries ({junk}) to be ignored: " if junk else "")
        total = total + found.total
        weight += torch.as_tensor(found.weight).detach().double()
        tally.add(found.metrics)
    inputs = [*leaves.tensors, *trial.trained]
    gradients = torch.autograd.grad(total, inputs, allow_unused=True)
    filled = [torch.zeros_like(i) if g is None else g for i, g in zip(inputs, gradients, strict=True)]
    return _Learned(total.detach(), weight, filled, tally.numbers())


def _check_loss(trial: _Trial, material: Material) -> None:
    contract, everything = trial.contract, [material.rows]
    leaves = material.leaves(moved=0.0)
    ones_BS = torch.ones_like(material.advantages.advantages_BS)
    given = material.minibatch(material.rows, leaves, ones_BS)
    watched = [tensor for tensor in tensors_in(given) if not tensor.requires_grad]
    with contract.untouched("loss", minibatch=watched):
        trial.optimizer.loss(given)
    raised = _learn(trial, material, everything, leaves, ones_BS)
    rises = bool(raised.gradients[0].sum() < 0)
    contract.expect(rises, "loss", "positive advantages to raise log-probabilities", "the opposite, or nothing")
    none = _learn(trial, material, everything, leaves, torch.zeros_like(ones_BS))
    finite = all(bool(torch.isfinite(gradient).all()) for gradient in none.gradients)
    contract.expect(finite, "loss", "finite gradients where nothing has an advantage", none.gradients)
    contract.verified.append("positive advantages raise log-probabilities")

    leaves = material.leaves()
    clean = _learn(trial, material, everything, leaves)
    contract.expect(bool(clean.weight > 0), "loss", "a weight above 0 of actions that count", clean.weight)
    for junk in (1.0, 1e4, -1e4, math.nan):
        other = _learn(trial, material, everything, leaves, junk=junk)
        trial.close("loss", f"masked entries ({junk}) to be ignored", other.total, clean.total, 1e-5)
        trial.close("loss", f"masked entries ({junk}) without weight", other.weight, clean.weight, 0.0)
        for gradient, wanted in zip(other.gradients, clean.gradients, strict=True):
            same = torch.allclose(gradient, wanted, atol=1e-6)
            contract.expect(same, "loss", f"masked entries ({junk}) without gradient", gradient)
        same_numbers = _same_numbers(other.numbers, clean.numbers)
        contract.expect(same_numbers, "loss", f"metrics without masked entries ({junk})", other.numbers)
    for name, module in trial.extra.items():
        mine = {id(p) for p in module.parameters() if p.requires_grad}
        reached = [
            bool(gradient.any())
            for parameter, gradient in zip(trial.trained, clean.gradients[len(leaves.tensors) :], strict=True)
            if id(parameter) in mine
        ]
        expected = f"a gradient for {name!r} of extra_modules (or requires_grad=False)"
        contract.expect(not mine or any(reached), "loss", expected, "none")
    with contract.working("should_stop", "a decision from the metrics of `loss`"):
        trial.optimizer.should_stop(clean.numbers)
    contract.verified.append("masked entries are ignored, NaN included")


def _check_sums(trial: _Trial, material: Material) -> None:
    """However a minibatch is cut, its parts add up to it."""
    contract, rows, leaves = trial.contract, material.rows, material.leaves()
    whole = _learn(trial, material, [rows], leaves)
    cuts = {
        "one by one": [[row] for row in rows],
        "unequal": [rows[:1], rows[1:]],
        "another order": [part for part in (rows[::-1][:2], rows[::-1][2:]) if part],
    }
    for name, parts in cuts.items():
        found = _learn(trial, material, [part for part in parts if part], leaves)
        expected = f"the parts of a minibatch ({name}) to add up to the whole: its"
        size = max(1.0, float(whole.total.abs()))
        trial.close("loss", f"{expected} total", found.total / size, whole.total / size, 1e-5)
        size = max(1.0, float(whole.weight))
        trial.close("loss", f"{expected} weight", found.weight / size, whole.weight / size, 1e-6)
        for gradient, wanted in zip(found.gradients, whole.gradients, strict=True):
            trial.close("loss", f"{expected} gradient", gradient, wanted, 1e-5 * max(1.0, float(wanted.abs().max())))
        got = f"{found.numbers} instead of {whole.numbers}"
        contract.expect(_same_numbers(found.numbers, whole.numbers), "loss", f"{expected} metrics", got)
    contract.verified.append("the parts of a minibatch add up: total, weight, gradient and metrics")


def _same_numbers(found: Mapping[str, float], wanted: Mapping[str, float]) -> bool:
    close = all(math.isclose(found[n], wanted[n], rel_tol=1e-4, abs_tol=1e-5) for n in wanted if n in found)
    return found.keys() == wanted.keys() and close


def _check_gradient_steps(trial: _Trial) -> None:
    contract, optimizer = trial.contract, trial.optimizer
    parameters = [p for p in trial.policy.parameters() if p.requires_grad] + trial.trained
    stepper = optimizer.torch_optimizer(parameters)
    groups = stepper.param_groups if isinstance(stepper, torch.optim.Optimizer) else []
    held = [id(parameter) for group in groups for parameter in group["params"]]
    right = sorted(held) == sorted(id(parameter) for parameter in parameters)
    wanted = "a torch optimizer of exactly the given parameters (the policy's and the extra modules')"
    contract.expect(right, "torch_optimizer", wanted, stepper)
    scales = [group.get("lr_scale", 1.0) for group in groups]
    valid = all(math.isfinite(scale) and scale >= 0 for scale in scales)
    contract.expect(valid, "torch_optimizer", "an `lr_scale` >= 0 in each parameter group that has one", scales)
    rates = [optimizer.learning_rate(update) for update in (0, 1, 1000)]
    valid = all(math.isfinite(rate) and rate >= 0 for rate in rates)
    contract.expect(valid, "learning_rate", "a number >= 0 for every update", rates)
    contract.verified.append("torch_optimizer holds every parameter; learning rates are finite")


def _check_state(trial: _Trial, material: Material, again: Callable[[], Optimizer]) -> None:
    """A fresh optimizer that is given what a snapshot holds goes on like this one."""
    contract, optimizer = trial.contract, trial.optimizer
    optimizer.advantages(trial.judged(1.0 - trial.values_GK))  # so that there is something to remember
    with tempfile.TemporaryDirectory() as folder:
        with contract.working("state_dict", "nested dicts and lists of tensors, numbers, strings and None"):
            save_snapshot(Path(folder), 0, {"state": optimizer.state_dict()})
        stored = (load_latest_snapshot(Path(folder)) or {})["state"]
    with contract.working("state_dict", "an optimizer that is built from `config` like this one"):
        fresh = again()
        fresh.attach(replace(trial.parts, optimizer=fresh))
        extra = fresh.extra_modules(trial.policy)
        for name, module in extra.items():
            module.load_state_dict(trial.extra[name].state_dict())
    with contract.working("load_state_dict", "to take over what a snapshot holds of state_dict()"):
        fresh.load_state_dict(copy.deepcopy(stored))
    twin = _Trial(contract, fresh, trial.parts, trial.policy, extra, trial.rollouts, trial.tolerance)
    leaves, wanted = material.leaves(), "a fresh optimizer with the state of another to go on like it"
    mine, others = (_learn(one, material, [material.rows], leaves) for one in (trial, twin))
    trial.close("load_state_dict", f"{wanted}: its loss", others.total, mine.total, 1e-6)
    judged = trial.judged(trial.values_GK)
    mine_BS, others_BS = (one.optimizer.advantages(judged).advantages_BS for one in (trial, twin))
    trial.close("load_state_dict", f"{wanted}: its advantages", others_BS, mine_BS, 1e-6)
    contract.verified.append("its state goes through a snapshot into a fresh optimizer")
