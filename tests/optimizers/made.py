"""Judged groups and minibatches made of plain numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from gymnast_core.learning import Judged, Minibatch
from gymnast_core.types import ActionChunk, LossSum, Observation, Reward, Rollout, Task, one_camera

FRAME_THWC = torch.zeros(1, 1, 1, 3, dtype=torch.uint8)


def judged(values_GK: Sequence[Sequence[float]], finish_B: Sequence[int | None] = (), steps: int = 2) -> Judged:
    """Groups with these rewards (NaN: not judged) and first successes, of `steps` actions each."""
    group_size = len(values_GK[0]) if values_GK else 4
    values_B = [value for row in values_GK for value in row]
    finish_B = finish_B or [None] * len(values_B)
    rewards = [
        Reward(None, error="busy") if math.isnan(value) else Reward(value, finish_step=finish)
        for value, finish in zip(values_B, finish_B, strict=True)
    ]
    rollouts = [rollout(index // group_size, steps) for index in range(len(values_B))]
    return Judged(tuple(rollouts), tuple(rewards), group_size)


def rollout(group: int, steps: int) -> Rollout:
    return Rollout(
        task=Task(f"task-{group}", "push", one_camera(FRAME_THWC)),
        group=group,
        frames_TVHWC=one_camera(FRAME_THWC.expand(1 + steps, -1, -1, -1)),
        actions_NLA=torch.zeros(1, steps, 1),
        log_prob_NLD=torch.zeros(1, steps, 1),
        temperature=1.0,
    )


def minibatch(
    log_prob_BSD: Tensor,
    old_log_prob_BSD: Tensor,
    advantages_B: Tensor,
    mask_BS: Tensor,
    reference_log_prob_BSD: Tensor | None = None,
) -> Minibatch:
    """One decision a trajectory; `advantages_B` may be (B, S) already."""
    count, steps, factors = log_prob_BSD.shape
    nothing = torch.zeros(count, steps, factors)
    pictures = one_camera(FRAME_THWC)[None].expand(count, -1, -1, -1, -1, -1)
    advantages_BS = advantages_B if advantages_B.ndim == 2 else advantages_B[:, None].expand(-1, steps)
    return Minibatch(
        rollouts=tuple(rollout(0, steps) for _ in range(count)),
        observation=Observation(pictures, ("push",) * count),
        chunk=ActionChunk(nothing[..., :1], old_log_prob_BSD),
        log_prob_BSD=log_prob_BSD,
        entropy_BSD=nothing,
        old_log_prob_BSD=old_log_prob_BSD,
        advantages_BS=advantages_BS,
        mask_BS=mask_BS,
        reference_log_prob_BSD=reference_log_prob_BSD,
    )


def numbers(loss: LossSum) -> dict[str, float]:
    """The values of a loss's metrics."""
    return {name: float(metric.value) for name, metric in loss.metrics.items()}
