"""Generalised advantage estimation over an episode's decisions (arXiv 1506.02438, eq. 11-16).

Shapes: B episodes, N decisions, L actions a decision, S = N·L actions.
"""

from __future__ import annotations

import torch
from torch import Tensor


def of_decisions(values_BS: Tensor, mask_BS: Tensor, decisions: int) -> Tensor:
    """The sums of each decision's unmasked actions, (B, N)."""
    count, steps = mask_BS.shape
    return torch.where(mask_BS, values_BS, 0.0).reshape(count, decisions, steps // decisions).sum(2)


def generalised_advantages(
    rewards_BN: Tensor, values_BN: Tensor, counted_BN: Tensor, *, last_B: Tensor, discount: float, trace: float
) -> Tensor:
    """A_n = delta_n + discount · trace · A_(n+1), delta_n = r_n + discount · V_(n+1) - V_n; (B, N).

    `counted_BN` (bool) are an episode's decisions until it ended; later ones have advantage 0 and V = 0. `last_B` is
    the value of what comes after the last decision: 0 where the episode ends with it. With `trace` 1 and `discount` 1
    an advantage is what was still earned (Monte Carlo), less the value.
    """
    values_BN = torch.where(counted_BN, values_BN, 0.0)
    rewards_BN = torch.where(counted_BN, rewards_BN, 0.0)
    # What follows the last decision that counts is the end, unless that is the last one of all.
    next_BN = torch.cat([values_BN[:, 1:], torch.where(counted_BN[:, -1], last_B, 0.0)[:, None]], dim=1)
    delta_BN = torch.where(counted_BN, rewards_BN + discount * next_BN - values_BN, 0.0)
    advantages = [torch.zeros_like(last_B)]
    for delta_B in reversed(delta_BN.unbind(1)):
        advantages.append(delta_B + discount * trace * advantages[-1])
    return torch.stack(advantages[:0:-1], dim=1)
