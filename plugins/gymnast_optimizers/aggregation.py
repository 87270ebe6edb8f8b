"""Averages over masked entries that are safe against whatever stands in the masked ones."""

from __future__ import annotations

import torch
from torch import Tensor


def masked(values_BS: Tensor, mask_BS: Tensor) -> Tensor:
    """`values_BS` in float32, zero where the mask is False; no gradient flows there, not even from NaN."""
    return torch.where(mask_BS, values_BS.float(), values_BS.new_zeros((), dtype=torch.float32))


def trajectory_means(values_BS: Tensor, mask_BS: Tensor) -> Tensor:
    """Mean over each trajectory's unmasked entries, (B,); 0 for a trajectory that has none."""
    return masked(values_BS, mask_BS).sum(1) / mask_BS.sum(1).clamp(min=1)


def masked_mean(values_BS: Tensor, mask_BS: Tensor, *, by: str) -> Tensor:
    """Scalar mean over B trajectories of S entries.

    `by="trajectory"`: every trajectory weighs the same (mean over its entries, then over trajectories).
    `by="token"`: every unmasked entry of the minibatch weighs the same.
    """
    if by == "token":
        return masked(values_BS, mask_BS).sum() / mask_BS.sum().clamp(min=1)
    return trajectory_means(values_BS, mask_BS).sum() / max(len(values_BS), 1)
