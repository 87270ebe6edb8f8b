"""What an optimizer answers, and what it must look like: asked in every run, since a wrong one teaches in silence."""

import math
from collections.abc import Iterable, Mapping
from typing import Any, SupportsFloat

import torch
from torch import Tensor

from gymnast_core.errors import ContractError
from gymnast_core.interfaces import Optimizer, Policy
from gymnast_core.learning import Advantages, Judged, Minibatch
from gymnast_core.metric_names import fault_of_form, fault_of_names
from gymnast_core.types import LossSum, Metric

COMBINES = ("mean", "sum", "max", "min")
"""How a `Metric` may combine."""


def check_numbers(optimizer: Optimizer) -> None:
    """Raises `ContractError` for a number of the optimizer that no run can work with."""
    for name in ("group_size", "epochs", "minibatch_size"):
        value = getattr(optimizer, name, None)
        if not isinstance(value, int) or value < 1:
            raise _broken(optimizer, name, f"is {value!r}, not a whole number above 0")
    norm = getattr(optimizer, "max_grad_norm", None)
    if not isinstance(norm, int | float) or not norm > 0:
        raise _broken(optimizer, "max_grad_norm", f"is {norm!r}, not a number above 0")
    ratio = optimizer.demonstrations_per_rollout
    if not isinstance(ratio, int | float) or not 0 <= ratio < math.inf:
        raise _broken(optimizer, "demonstrations_per_rollout", f"is {ratio!r}, not a number from 0")


def checked_advantages(optimizer: Optimizer, found: Any, judged: Judged) -> Advantages:
    """What `optimizer.advantages` returned.

    Raises `ContractError` if it is no `Advantages`, has other shapes or dtypes than `gymnast_core.learning` says, or an
    infinite or NaN advantage for an action that counts of a judged rollout.
    """
    if not isinstance(found, Advantages):
        what = f"returned a {type(found).__name__}, not an Advantages of gymnast_core.learning"
        raise _broken(optimizer, "advantages", what)
    mask_BS = judged.mask_BS
    advantages_BS = found.advantages_BS
    for name, tensor in {"advantages_BS": advantages_BS, **found.targets}.items():
        if not isinstance(tensor, Tensor):
            raise _broken(optimizer, "advantages", f"gave {name} as {type(tensor).__name__}, not as a tensor")
        if tensor.ndim == 0 or len(tensor) != len(mask_BS):
            what = f"gave {name} of shape {tuple(tensor.shape)}; expected a row for each of {len(mask_BS)} rollouts"
            raise _broken(optimizer, "advantages", what)
    if not len(mask_BS):
        return found
    if advantages_BS.shape != mask_BS.shape or advantages_BS.dtype != torch.float32:
        what = f"gave advantages_BS {advantages_BS.dtype} {tuple(advantages_BS.shape)}"
        raise _broken(optimizer, "advantages", f"{what}; expected torch.float32 {tuple(mask_BS.shape)}")
    counts_BS = mask_BS & judged.valid_GK.reshape(-1, 1)
    if not bool(torch.isfinite(advantages_BS.detach().cpu()[counts_BS]).all()):
        raise _broken(optimizer, "advantages", "gave advantages that are infinite or NaN, of rollouts that were judged")
    return found


def checked_loss(asked: object, method: str, found: Any) -> LossSum:
    """The `LossSum` that a method of a component returned; its values are looked at by `check_weight`. Raises
    `ContractError` if it is of another form, or if it weighs something and has no gradient."""
    if not isinstance(found, LossSum):
        raise _broken(asked, method, f"returned a {type(found).__name__}, not a LossSum of gymnast_core.types")
    if not isinstance(found.total, Tensor) or found.total.ndim:
        shape = tuple(found.total.shape) if isinstance(found.total, Tensor) else type(found.total).__name__
        raise _broken(asked, method, f"gave the total {shape}; expected a tensor that is one number")
    weight = found.weight
    if not isinstance(weight, int | float | Tensor) or (isinstance(weight, Tensor) and weight.ndim):
        said = f"of shape {tuple(weight.shape)}" if isinstance(weight, Tensor) else repr(weight)
        raise _broken(asked, method, f"gave a weight {said}; expected one number")
    if not isinstance(found.metrics, Mapping):
        raise _broken(asked, method, f"gave metrics as {type(found.metrics).__name__}, not by name")
    if fault := fault_of_names(found.metrics):
        raise _broken(asked, method, f"gave {fault}")
    for name, metric in found.metrics.items():
        _check_metric(asked, method, name, metric)
    if not found.total.requires_grad and float(weight) > 0:
        raise _broken(asked, method, "gave a total without a gradient (detached): nothing would be learned from it")
    return found


def _check_metric(asked: object, method: str, name: str, metric: Any) -> None:
    """One number, and how it combines. The number itself may be anything: it is only logged."""
    if not isinstance(metric, Metric) or metric.combine not in COMBINES:
        known = ", ".join(COMBINES)
        raise _broken(asked, method, f"gave the metric {name!r} as {metric!r:.80}; expected a Metric that says {known}")
    for part in (metric.value, metric.weight):
        if not isinstance(part, int | float | Tensor) or (isinstance(part, Tensor) and part.numel() != 1):
            raise _broken(asked, method, f"gave the metric {name!r} as {metric!r:.80}; expected one number each")


def check_weight(asked: object, method: str, weight: float, total: float) -> None:
    """Raises `ContractError` if a loss of this weight and total would teach nothing, or the opposite, in silence."""
    if not math.isfinite(weight) or weight < 0:
        raise _broken(asked, method, f"gave the weight {weight}; expected a finite number from 0")
    if weight == 0 and total != 0:
        raise _broken(asked, method, f"gave the total {total:g} with the weight 0: what weighs nothing adds up to 0")


def fault_of_numbers(found: Any) -> str:
    """What is wrong with what a component measured on held-out episodes; "" if it is numbers by name."""
    if not isinstance(found, Mapping):
        return f"a {type(found).__name__}"
    if fault := fault_of_form(found):
        return fault
    for name, value in found.items():
        if not isinstance(value, SupportsFloat) or (isinstance(value, Tensor) and value.numel() != 1):
            return f"{name!r} as {value!r:.80}"
    return ""


def checked_numbers(asked: object, method: str, found: Any) -> dict[str, float]:
    """What a component measured, as Python's numbers by name. Raises `ContractError` for anything else."""
    if fault := fault_of_numbers(found):
        raise _broken(asked, method, f"gave {fault}; expected numbers by name")
    return {name: float(value) for name, value in found.items()}


def checked_rate(optimizer: Optimizer, update: int) -> float:
    """The learning rate of a gradient step. Raises `ContractError` if it is no finite number from 0."""
    rate = optimizer.learning_rate(update)
    if not isinstance(rate, int | float) or not 0 <= rate < math.inf:
        raise _broken(optimizer, "learning_rate", f"is {rate!r} for step {update}; expected a finite number from 0")
    return rate


@torch.no_grad()
def where_not_finite(policy: Policy, optimizer: Optimizer, minibatches: Iterable[Minibatch]) -> str:
    """Of minibatches whose gradient is not finite, a sentence that names who first gave a number that is not; "" if all
    numbers are finite, and only the gradient is not."""
    for minibatch in minibatches:
        mask_BS = minibatch.mask_BS
        for name, values_BSD in (
            ("log-probabilities", minibatch.log_prob_BSD),
            ("entropies", minibatch.entropy_BSD),
        ):
            if not bool(torch.isfinite(values_BSD[mask_BS]).all()):
                return f"{type(policy).__name__}.evaluate gave {name} that are infinite or NaN. "
        if not bool(torch.isfinite(optimizer.loss(minibatch).total)):
            return f"{type(optimizer).__name__}.loss gave a total that is infinite or NaN, from finite inputs. "
    return ""


def _broken(asked: object, method: str, what: str) -> ContractError:
    return ContractError(f"{type(asked).__name__}.{method} {what}. `gymnast check` tries it.")
