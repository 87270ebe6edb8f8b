"""From votes to one value: the most frequent one, if no missing vote could change that."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

TIES = ("unknown", "failure", "success")
"""What a tie can count as."""


@dataclass(frozen=True)
class Decision:
    """The outcome of a vote."""

    value: float | None
    """The decided value; None if there is none."""
    reason: str
    """Why there is no value; "" if there is."""
    abstained: bool = False
    """Whether every vote was heard, and they decide nothing."""


def decide(votes: Sequence[float], missing: int, *, tie: str = "unknown", unanimous: bool = False) -> Decision:
    """The most frequent of `votes`, where `missing` more were asked for but could not be had.

    A value is decided only if it leads by more than the missing votes: they could not overturn it. With every vote at
    hand, equal counts are a tie, which is unknown, or the lowest ("failure") or highest ("success") of the tied values.
    `unanimous` demands that all agree and treats any disagreement as a tie.
    """
    if not votes:
        return Decision(None, "no vote could be had")
    counts = Counter(votes).most_common()
    lead = counts[0][1] - (counts[1][1] if len(counts) > 1 else 0)
    listed = " ".join(f"{vote:g}" for vote in votes)
    if unanimous:
        if missing:
            return Decision(None, f"undecided: votes {listed}, {missing} missing")
        tied = list(counts) if len(counts) > 1 else counts[:1]
    else:
        if missing and lead <= missing:
            return Decision(None, f"undecided: votes {listed}, {missing} missing")
        tied = [item for item in counts if item[1] == counts[0][1]]
    if len(tied) == 1:
        return Decision(tied[0][0], "")
    if tie == "unknown":
        return Decision(None, f"{'disagreement' if unanimous else 'tie'}: votes {listed}", abstained=True)
    values = [value for value, _ in tied]
    return Decision(min(values) if tie == "failure" else max(values), "")
