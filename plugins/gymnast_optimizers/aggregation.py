"""Sums and means over masked entries that are safe against whatever stands in the masked ones."""

from __future__ import annotations

import torch
from torch import Tensor

from gymnast_core.types import Metric

AVERAGES = ("trajectory", "token", "horizon")
"""How factors are averaged: "trajectory": every trajectory weighs the same (the mean over its entries, then over
trajectories); "token": every unmasked entry weighs the same (DAPO, arXiv 2503.14476); "horizon": every unmasked entry
weighs the same, and a trajectory that ended early less (its sum over the entries of a whole horizon, then the mean over
trajectories: the constant that Dr. GRPO, arXiv 2503.20783, divides by)."""


def masked(values: Tensor, mask: Tensor) -> Tensor:
    """`values` in float32 or better, zero where the mask is False; no gradient flows there, not even from NaN."""
    values = values if values.dtype == torch.float64 else values.float()
    return torch.where(mask, values, torch.zeros((), dtype=values.dtype, device=values.device))


def factors_mask(mask_BS: Tensor, values_BSD: Tensor) -> Tensor:
    """The mask of actions as one of their factors, bool (B, S, D)."""
    return mask_BS.bool()[..., None].expand_as(values_BSD)


def trajectory_means(values_BSD: Tensor, mask_BS: Tensor) -> Tensor:
    """Mean over each trajectory's unmasked factors, (B,); 0 for a trajectory that has none."""
    mask_BSD = factors_mask(mask_BS, values_BSD)
    return masked(values_BSD, mask_BSD).sum((1, 2)) / mask_BSD.sum((1, 2)).clamp(min=1)


def masked_sum(values_BSD: Tensor, mask_BS: Tensor, *, by: str) -> tuple[Tensor, Tensor]:
    """A sum and its weight, both scalars, such that their quotient over any parts together is the mean `by` one of
    `AVERAGES`."""
    if by == "token":
        mask_BSD = factors_mask(mask_BS, values_BSD)
        return masked(values_BSD, mask_BSD).sum(), mask_BSD.sum()
    if by == "horizon":
        entries = values_BSD.shape[1] * values_BSD.shape[2]
        sums_B = masked(values_BSD, factors_mask(mask_BS, values_BSD)).sum((1, 2)) / max(entries, 1)
    else:
        sums_B = trajectory_means(values_BSD, mask_BS)
    return sums_B.sum(), torch.tensor(len(sums_B), device=sums_B.device)


def masked_metric(values_BSD: Tensor, mask_BS: Tensor, *, by: str) -> Metric:
    """The mean over what counts, to be logged: `by` "token", or else over each trajectory's unmasked entries and then
    over trajectories. A loss by "horizon" divides by masked entries, too; a number that tells of a policy must not."""
    total, weight = masked_sum(values_BSD.detach(), mask_BS, by="trajectory" if by == "horizon" else by)
    return Metric(total / weight.clamp(min=1), weight)
