"""Where a yes or a no is asked for: which judgements in [0, 1] are successes."""

SUCCESS_ABOVE = 0.5
"""Above it, a judgement of a reward model of the kind "success" counts as a success. Half a success is none."""


def is_success(value: float) -> bool:
    """Whether a judgement in [0, 1] (`Reward.value` of the kind "success", an outcome of a world) is a success."""
    return value > SUCCESS_ABOVE
