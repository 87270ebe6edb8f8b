"""How good a binary judge is, as named numbers."""

from __future__ import annotations

import math

from torch import Tensor


def judge_quality(probability_M: Tensor, fulfilled_M: Tensor, threshold: float | Tensor) -> dict[str, float]:
    """Accuracy, precision, recall, false-positive rate, calibration error and success rates of M judgements.

    `threshold` is one for all, or (M,). A number that has no cases (precision without any positive judgement) is NaN.
    """
    judged_M, fulfilled_M = probability_M > threshold, fulfilled_M.bool()
    hits = int((judged_M & fulfilled_M).sum())
    false_alarms = int((judged_M & ~fulfilled_M).sum())
    misses = int((~judged_M & fulfilled_M).sum())
    rejections = len(fulfilled_M) - hits - false_alarms - misses
    return {
        "count": float(len(fulfilled_M)),
        "accuracy": _ratio(hits + rejections, len(fulfilled_M)),
        "precision": _ratio(hits, hits + false_alarms),
        "recall": _ratio(hits, hits + misses),
        "false_positive_rate": _ratio(false_alarms, false_alarms + rejections),
        "calibration_error": calibration_error(probability_M, fulfilled_M),
        "success_rate": _ratio(hits + misses, len(fulfilled_M)),
        "judged_success_rate": _ratio(hits + false_alarms, len(fulfilled_M)),
    }


def calibration_error(probability_M: Tensor, fulfilled_M: Tensor, *, bins: int = 10) -> float:
    """Expected calibration error over equal-width bins (arXiv 1706.04599, eq. 3); NaN without cases."""
    if not len(probability_M):
        return math.nan
    bin_M = (probability_M * bins).long().clamp(max=bins - 1)
    gap = 0.0
    for index in bin_M.unique():
        chosen_M = bin_M == index
        confidence, accuracy = probability_M[chosen_M].mean(), fulfilled_M[chosen_M].float().mean()
        gap += float((confidence - accuracy).abs()) * int(chosen_M.sum())
    return gap / len(probability_M)


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else math.nan
