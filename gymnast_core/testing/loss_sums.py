"""The form of an optimizer's loss: a sum, its weight, and metrics that say how they combine."""

import math

import torch
from torch import Tensor

from gymnast_core.metric_names import fault_of_names
from gymnast_core.testing.contract import Contract
from gymnast_core.training.answers import COMBINES
from gymnast_core.types import LossSum, Metric


def expect_sum(contract: Contract, found: LossSum, why: str) -> None:
    """What `Optimizer.loss` returned for a part of a minibatch; `why` begins what was expected of finite numbers."""
    contract.expect(isinstance(found, LossSum), "loss", "a `LossSum`", type(found).__name__)
    total, weight = found.total, torch.as_tensor(found.weight)
    is_scalar = isinstance(total, Tensor) and total.ndim == 0 and total.requires_grad
    contract.expect(is_scalar, "loss", "a differentiable scalar as total, even of a part that weighs nothing", total)
    contract.expect(bool(torch.isfinite(total)), "loss", f"{why}a finite total", total)
    is_weight = weight.ndim == 0 and not weight.requires_grad and bool(torch.isfinite(weight)) and float(weight) >= 0
    contract.expect(is_weight, "loss", "a weight >= 0 that needs no gradient", found.weight)
    contract.expect(
        float(weight) > 0 or not bool(total),
        "loss",
        "a total of 0 where nothing is weighed",
        f"{total.item():g} with the weight 0",
    )
    fault = fault_of_names(found.metrics)
    contract.expect(fault is None, "loss", "names of metrics that a run can log", fault)
    for name, metric in found.metrics.items():
        is_metric = isinstance(metric, Metric) and metric.combine in COMBINES
        contract.expect(is_metric, "loss", f"metric {name!r} to be a `Metric` that says how it combines", metric)
        value, share = torch.as_tensor(metric.value), torch.as_tensor(metric.weight)
        contract.expect(value.ndim == share.ndim == 0, "loss", f"metric {name!r} to be one number", metric)
        counts = metric.combine != "mean" or float(share) > 0
        contract.expect(not counts or math.isfinite(value), "loss", f"{why}metric {name!r} to be finite", metric)
