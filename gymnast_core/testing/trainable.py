"""The contract of what `gymnast fit` asks: losses on recorded episodes, which are sums to which each episode adds the
same in any company, and what is measured on them."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gymnast_core.errors import ContractError, GymnastError
from gymnast_core.interfaces import Trainable
from gymnast_core.metric_names import fault_of_names
from gymnast_core.testing.contract import Contract, tensors_in
from gymnast_core.testing.making import make_tasks, seeded, uniform
from gymnast_core.training.answers import fault_of_numbers
from gymnast_core.types import Episode, LossSum, Metric, Needs

POINTS = 4
"""Points of interest a frame of made-up episodes."""


@dataclass(frozen=True)
class _Sums:
    """What the parts of a batch add up to."""

    total: float
    weight: float
    gradients: Tensor
    """A projection of each parameter's gradient: those of the parts add up as the gradients do."""
    norm: float
    """Of the gradients, an upper bound."""


def check_trainable(
    contract: Contract,
    component: Trainable,
    episodes: Sequence[Episode],
    *,
    tolerance: float = 1e-3,
    given: bool = True,
) -> None:
    """Check `training_loss` and `validate`, where the component has them; arguments as of `check_training_loss`."""
    if type(component).training_loss is not Trainable.training_loss:
        check_training_loss(contract, component, episodes, tolerance=tolerance, given=given)
    if type(component).validate is not Trainable.validate:
        _check_validate(contract, component, episodes, given=given)


def _check_validate(contract: Contract, component: Trainable, episodes: Sequence[Episode], *, given: bool) -> None:
    """That it measures numbers that a run can log, and the same ones from the same seed."""
    measured = []
    for _ in range(2):
        found = _asked(contract, component, "validate", "measures", episodes, given)
        if found is None:
            return
        fault = fault_of_numbers(found)
        contract.expect(not fault, "validate", "numbers by name", fault)
        measured.append({name: float(value) for name, value in found.items()})
    contract.expect(repr(measured[0]) == repr(measured[1]), "validate", "the same numbers from the same seed", measured)
    contract.verified.append(f"validate measures {len(measured[0])} numbers, the same from the same seed")


def _asked(contract: Contract, component: Any, method: str, does: str, episodes: Sequence[Episode], given: bool) -> Any:
    """What a method says of the episodes, which it must leave as they are; None where made-up ones do not suit it."""
    # NaN equals nothing, itself included.
    tensors = [tensor for tensor in tensors_in(list(episodes)) if not bool(tensor.isnan().any())]
    try:
        with contract.untouched(method, episodes=tensors), nullcontext() if given else _without_warnings():
            return getattr(component, method)(episodes, generator=seeded(9))
    except ContractError:
        raise
    except GymnastError as error:
        if given:
            raise
        contract.verified.append(f"not shown: that {method} {does}, since made-up episodes do not suit it ({error})")
        return None


@contextmanager
def _without_warnings() -> Iterator[None]:
    """Whoever checks a plugin can do nothing about episodes that were made up."""
    before = logging.root.manager.disable
    logging.disable(max(before, logging.WARNING))
    try:
        yield
    finally:
        logging.disable(before)


def check_training_loss(
    contract: Contract,
    component: Any,
    episodes: Sequence[Episode],
    *,
    method: str = "training_loss",
    tolerance: float = 1e-3,
    given: bool = True,
) -> None:
    """Check that a loss is a `LossSum` whose parts add up, gradients included, with each episode's randomness its own.

    `tolerance` is the share by which parts may differ from the whole. Of made-up episodes (not `given`) that the
    component refuses, "not shown" is verified.
    """
    loss = _asked(contract, component, method, "adds up", episodes, given)
    if loss is None:
        return
    _check_form(contract, loss, method)
    if not given and float(loss.weight) == 0:
        contract.verified.append(f"not shown: that {method} adds up, since it learns nothing from made-up episodes")
        return
    contract.expect(float(loss.weight) > 0, method, "a `weight` > 0 of episodes to learn from", loss.weight)
    whole = _sums(component, method, episodes, len(episodes))
    again = _sums(component, method, episodes, len(episodes))
    contract.expect(whole.total == again.total, method, "the same loss from the same seed", (whole.total, again.total))
    contract.expect(whole.norm > 0, method, "gradients that reach module()'s parameters", "none")
    for size in (1, 2):
        parts = _sums(component, method, episodes, size)
        what = f"sums over the episodes: {size} at a time must add up to what all give at once"
        for name in ("total", "weight"):
            found, wanted = getattr(parts, name), getattr(whole, name)
            contract.expect(abs(found - wanted) <= tolerance * abs(wanted), method, what, f"{name} {found}, {wanted}")
        gap = float((parts.gradients - whole.gradients).norm()) / whole.norm
        contract.expect(gap <= tolerance, method, f"{what}, gradients included", f"gradients that differ by {gap:.2g}")
    contract.verified.append(f"{method} adds up over any parts")


def make_episodes(
    needs: Needs, action_dim: int, chunk_length: int, image_size: int, instructions: Sequence[str] = ()
) -> list[Episode]:
    """Four episodes of unequal lengths and instructions (in turn the given ones, if any), with points of interest of
    which some are out of view."""
    episodes = []
    for index, extra in enumerate((1, 4, 2, 3)):
        frames = chunk_length + extra + needs.history
        (task,) = make_tasks(
            1,
            image_size,
            seed=index,
            cameras=needs.cameras,
            proprio_dim=needs.proprio,
            context=frames,
            action_dim=action_dim,
        )
        points_TJ2 = (uniform((frames, POINTS, 2), index) + 1) / 2
        points_TJ2[:, index:] = float("nan")
        instruction = instructions[index % len(instructions)] if instructions else task.instruction + " again" * index
        assert task.actions_TA is not None
        episodes.append(
            Episode(
                f"check-{index}",
                instruction,
                task.frames_TVHWC,
                task.actions_TA,
                task.cameras,
                proprio_TP=task.proprio_TP,
                fps=5.0,
                success=bool(index % 2),
                outcomes={instruction: bool(index % 2)},
                points_TJ2=points_TJ2,
            )
        )
    return episodes


def _check_form(contract: Contract, loss: Any, method: str) -> None:
    contract.expect(isinstance(loss, LossSum), method, "a LossSum", type(loss).__name__)
    is_scalar = isinstance(loss.total, Tensor) and loss.total.numel() == 1 and loss.total.requires_grad
    contract.expect(is_scalar, method, "a differentiable scalar `total`", loss.total)
    contract.expect(bool(torch.isfinite(loss.total)), method, "a finite `total`", loss.total)
    weight = loss.weight
    free = not (isinstance(weight, Tensor) and weight.requires_grad)
    contract.expect(free and float(weight) >= 0, method, "a `weight` >= 0 without gradient", weight)
    are_metrics = all(isinstance(metric, Metric) for metric in loss.metrics.values())
    contract.expect(are_metrics, method, "metrics that say how they combine (Metric)", dict(loss.metrics))
    fault = fault_of_names(loss.metrics)
    contract.expect(fault is None, method, "names of metrics that a run can log", fault)


def _sums(component: Any, method: str, episodes: Sequence[Episode], size: int) -> _Sums:
    """The loss of all episodes, `size` at a time."""
    generator = seeded(9)
    parameters = [parameter for parameter in component.module().parameters() if parameter.requires_grad]
    total = weight = norm = 0.0
    projected = torch.zeros(len(parameters), dtype=torch.float64)
    for first in range(0, len(episodes), size):
        loss = getattr(component, method)(episodes[first : first + size], generator=generator)
        gradients = torch.autograd.grad(loss.total, parameters, allow_unused=True)
        total += float(loss.total.detach())
        weight += float(loss.weight)
        projected += torch.stack([_projected(gradient) for gradient in gradients])
        norm += sum(float(gradient.double().norm()) for gradient in gradients if gradient is not None)
    return _Sums(total, weight, projected, norm)


def _projected(gradient: Tensor | None) -> Tensor:
    """A sum with fixed signs: a second set of gradients of a large component would not fit beside the first."""
    if gradient is None:
        return torch.zeros((), dtype=torch.float64)
    signs = torch.arange(gradient.numel(), device=gradient.device).mul(7).remainder(11).remainder(2) * 2 - 1
    return (gradient.flatten().double() * signs).sum().cpu()
