"""How far the votes behind judgements agree."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class VoteAgreement:
    """How far several votes on each of many items agree."""

    items: int
    """Items with at least two votes."""
    votes: int
    pairwise: tuple[float, ...]
    """Share of agreeing pairs of votes of each item."""
    unanimous: int
    """Items on which all votes agree."""
    kappa: float | None
    """Fleiss' kappa: agreement beyond chance, 1 at most; None where all votes are alike, so that chance agrees too."""

    @property
    def mean(self) -> float:
        """Mean pairwise agreement, P in Fleiss (1971)."""
        return sum(self.pairwise) / self.items


def pair_agreement(votes: Sequence[float]) -> float:
    """Share of the pairs of two or more votes that agree."""
    n = len(votes)
    return sum(count * (count - 1) for count in Counter(votes).values()) / (n * (n - 1))


def vote_agreement(votes_by_item: Sequence[Sequence[float]]) -> VoteAgreement | None:
    """Agreement of votes (J. L. Fleiss, Psychol. Bull. 76, 1971, eqs. 1-7); None without an item of two votes.

    Items may have different numbers of votes (some were lost): the categories' shares are then those of all votes.
    """
    several = [votes for votes in votes_by_item if len(votes) > 1]
    if not several:
        return None
    pairwise = tuple(pair_agreement(votes) for votes in several)
    counts = Counter(vote for votes in several for vote in votes)
    total = sum(counts.values())
    chance = sum((count / total) ** 2 for count in counts.values())
    mean = sum(pairwise) / len(several)
    return VoteAgreement(
        items=len(several),
        votes=total,
        pairwise=pairwise,
        unanimous=sum(share == 1.0 for share in pairwise),
        kappa=None if len(counts) == 1 else (mean - chance) / (1 - chance),
    )
