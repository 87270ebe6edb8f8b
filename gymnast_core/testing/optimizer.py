"""The contract of optimizers."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from gymnast_core.interfaces import Optimizer
from gymnast_core.testing.component import check_component
from gymnast_core.testing.contract import Contract, expect_close, instance
from gymnast_core.testing.making import seeded, uniform


def check_optimizer(
    optimizer: Optimizer | Callable[[], Optimizer],
    *,
    group_relative: bool | None = None,
    scale_invariant: bool | None = None,
    tolerance: float = 1e-3,
) -> list[str]:
    """Check `keep`, `advantages`, `loss` and the gradient steps.

    Advantages that sum to 0 within a group are taken to be group-relative: shifting the rewards must not
    change them and equal rewards must give 0. If halving the rewards changes nothing in one group, it must
    not in any. `group_relative` and `scale_invariant` say what to demand instead of finding it out.
    """
    subject = instance(optimizer)
    contract = Contract(subject, Optimizer)
    for name in ("group_size", "epochs", "minibatch_size", "max_grad_norm"):
        value = getattr(subject, name, None)
        contract.expect(isinstance(value, int | float) and value > 0, name, "a positive number", value)
    _check_advantages(contract, subject, group_relative, scale_invariant, tolerance)
    _check_loss(contract, subject)
    parameters = [torch.nn.Parameter(torch.zeros(4, 4)), torch.nn.Parameter(torch.zeros(4))]
    stepper = subject.torch_optimizer(parameters)
    held = isinstance(stepper, torch.optim.Optimizer) and {
        id(parameter) for group in stepper.param_groups for parameter in group["params"]
    } == {id(parameter) for parameter in parameters}
    contract.expect(held, "torch_optimizer", "a torch optimizer of exactly the given parameters", stepper)
    rates = [subject.learning_rate(update) for update in (0, 1, 1000)]
    valid = all(math.isfinite(rate) and rate >= 0 for rate in rates)
    contract.expect(valid, "learning_rate", "a number >= 0 for every update", rates)
    contract.verified.append("torch_optimizer holds every parameter; learning rates are finite")
    check_component(contract, subject)
    return contract.verified


def _check_advantages(
    contract: Contract, optimizer: Optimizer, relative: bool | None, scale: bool | None, tolerance: float
) -> None:
    shape = (5, max(optimizer.group_size, 2))
    rewards_GK = uniform(shape, seed=8) * 0.4 + 0.5
    valid_GK = torch.ones(shape, dtype=torch.bool)
    with contract.untouched("advantages", rewards_GK=rewards_GK, valid_GK=valid_GK):
        base = optimizer.advantages(rewards_GK, valid_GK)
        kept = optimizer.keep(rewards_GK, valid_GK)
    contract.tensor(base, "advantages", "advantages", shape, torch.float32)
    contract.tensor(kept, "keep", "kept groups", shape[:1], torch.bool)
    order = torch.randperm(shape[1], generator=seeded(9))
    permuted = optimizer.advantages(rewards_GK[:, order], valid_GK[:, order])
    expect_close(contract, "advantages", "permuted with their rewards", permuted, base[:, order], tolerance)

    backwards = optimizer.advantages(rewards_GK.flip(0), valid_GK.flip(0)).flip(0)
    expect_close(contract, "advantages", "the same in any order of the groups", backwards, base, tolerance)

    holes_GK = valid_GK.clone()
    holes_GK[0, 0] = holes_GK[1, 1] = False
    holes_GK[2] = False
    clean = optimizer.advantages(rewards_GK.masked_fill(~holes_GK, 0.0), holes_GK)
    for junk in (1.0, 1e9, math.nan):
        dirty_GK = rewards_GK.masked_fill(~holes_GK, junk)
        found = optimizer.advantages(dirty_GK, holes_GK)
        contract.expect(bool((found[~holes_GK] == 0).all()), "advantages", "0 for unscored rollouts", found)
        expect_close(contract, "advantages", f"unscored rewards ({junk}) to be ignored", found, clean, 0.0)
        same = torch.equal(optimizer.keep(dirty_GK, holes_GK), optimizer.keep(rewards_GK, holes_GK))
        contract.expect(same, "keep", f"unscored rewards ({junk}) to be ignored", "another choice of groups")
    nothing = bool(optimizer.keep(rewards_GK, holes_GK)[2])
    contract.expect(not nothing, "keep", "a group without any scored rollout to be dropped", "it kept")
    contract.verified += ["advantages follow their rollouts", "unscored rewards are ignored"]

    if relative is None:
        relative = bool((base.sum(1).abs() < tolerance).all())
    if relative:
        shifted = optimizer.advantages(rewards_GK + 0.05, valid_GK)
        expect_close(contract, "advantages", "no change by a shift of the rewards", shifted, base, tolerance)
        equal = optimizer.advantages(torch.full(shape, 0.5), valid_GK)
        contract.expect(bool((equal == 0).all()), "advantages", "0 where all rewards are equal", equal)
        contract.verified += ["shifting the rewards changes nothing", "equal rewards give 0"]
    halved = optimizer.advantages(rewards_GK / 2, valid_GK)
    if scale is None:
        scale = relative and bool(((halved[0] - base[0]).abs() < tolerance).all())
    if scale:
        expect_close(contract, "advantages", "no change by a scale of the rewards", halved, base, tolerance)
        contract.verified.append("scaling the rewards changes nothing")


def _check_loss(contract: Contract, optimizer: Optimizer) -> None:
    mask_BS = torch.ones(4, 6, dtype=torch.bool)
    mask_BS[0, 3:] = mask_BS[1, 5:] = False
    old_BS, advantages_B = uniform((4, 6), seed=10) - 2.0, torch.ones(4)
    reference_BS = old_BS.clone() if optimizer.needs_reference else None

    def loss(junk: float) -> tuple[Tensor, Tensor, dict[str, float]]:
        log_prob_BS = old_BS.masked_fill(~mask_BS, junk).requires_grad_()
        found = optimizer.loss(log_prob_BS, old_BS, advantages_B, mask_BS, reference_BS)
        is_scalar = isinstance(found.value, Tensor) and found.value.ndim == 0 and found.value.requires_grad
        contract.expect(is_scalar, "loss", "a differentiable scalar", found.value)
        (gradient_BS,) = torch.autograd.grad(found.value, log_prob_BS)
        return found.value.detach(), gradient_BS, dict(found.metrics)

    with contract.untouched("loss", old=old_BS, advantages=advantages_B, mask=mask_BS):
        value, gradient_BS, metrics = loss(-1.0)
    contract.expect(bool(torch.isfinite(value)), "loss", "a finite value", value)
    rises = bool(gradient_BS.sum() < 0)
    contract.expect(rises, "loss", "positive advantages to raise log-probabilities", "the opposite, or nothing")
    for junk in (0.0, 1e4, -1e4):
        other, other_gradient_BS, _ = loss(junk)
        expect_close(contract, "loss", f"masked entries ({junk}) to be ignored", other, value, 1e-6)
        same = torch.allclose(other_gradient_BS, gradient_BS, atol=1e-6)
        clean = bool((other_gradient_BS[~mask_BS] == 0).all())
        contract.expect(same and clean, "loss", f"masked entries ({junk}) without gradient", other_gradient_BS)
    numbers = all(isinstance(number, int | float) for number in metrics.values())
    contract.expect(numbers, "loss", "metrics that are plain numbers", metrics)
    with contract.working("should_stop", "a decision from the metrics of `loss`"):
        optimizer.should_stop(metrics)
    contract.verified += ["positive advantages raise log-probabilities", "masked entries are ignored"]

    def value_of(order: Tensor, padding: int) -> Tensor:
        wide = [torch.nn.functional.pad(tensor.float(), (0, padding))[order] for tensor in (old_BS, mask_BS)]
        reference = wide[0] if optimizer.needs_reference else None
        return optimizer.loss(
            wide[0].clone().requires_grad_(), wide[0], weights_B[order], wide[1].bool(), reference
        ).value

    weights_B = torch.tensor([1.0, 0.5, 2.0, 0.25])
    order = torch.arange(4)
    plain = value_of(order, 0)
    expect_close(contract, "loss", "padding to be ignored", value_of(order, 2), plain, 1e-5)
    expect_close(contract, "loss", "the same in any order of trajectories", value_of(order.flip(0), 0), plain, 1e-5)
    contract.verified.append("padding and the order of trajectories do not matter")
