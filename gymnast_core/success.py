"""Where a yes or a no is asked for: which judgements in [0, 1] are successes."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gymnast_core.types import Reward

SUCCESS_ABOVE = 0.5
"""Above it, a judgement of a reward model of the kind "success" counts as a success. Half a success is none."""


def is_success(value: float) -> bool:
    """Whether a judgement in [0, 1] (`Reward.value` of the kind "success", an outcome of a world) is a success."""
    return value > SUCCESS_ABOVE


def success_of(reward: Reward) -> float | None:
    """What reports and filters call success, in [0, 1]; None where nothing was judged. Of a reward model of the kind
    "score" it is the value, which is no success."""
    return reward.value if reward.value is None or reward.success is None else reward.success
