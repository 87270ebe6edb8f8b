"""The rows of results.jsonl: one labelled clip and its judgement each."""

from __future__ import annotations

from dataclasses import dataclass

CASES = ("false positive", "false negative", "true positive", "true negative", "unscored")
"""What a verdict can be, mistakes first."""


@dataclass(frozen=True)
class Verdict:
    """A judgement beside the truth."""

    index: int
    """Number of the clip in its dataset."""
    clip: str
    instruction: str
    success: bool
    """The truth."""
    value: float | None
    """The judge's; None when it gave none."""
    partial: float | None
    """Its graded score in [0, 1], where it gives one."""
    votes: list[float]
    """Behind the value; empty for judges that do not vote."""
    error: str | None
    """Why there is no value."""
    rationale: str
    cost_usd: float | None
    reward_kind: str = "success"
    """What `value` is: success in [0, 1], or a "score"."""
    abstained: bool = False
    """Of an error: the judge was heard and gave no verdict, rather than not heard in full."""

    def judged(self, threshold: float) -> bool | None:
        """Whether the judge saw a success; None when unscored."""
        return None if self.value is None else self.value > threshold

    def case(self, threshold: float) -> str:
        """One of `CASES`."""
        judged = self.judged(threshold)
        if judged is None:
            return "unscored"
        return f"{'true' if judged == self.success else 'false'} {'positive' if judged else 'negative'}"
