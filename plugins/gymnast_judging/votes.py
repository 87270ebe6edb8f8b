"""The votes behind a judgement, and how far they agree.

VLM judges list their votes in the rationale ("… [votes 1 1 0; gpt-4o, binary-v1]") or, where votes decide nothing, in
the error ("tie: votes 1 0"). Their own note follows the model's reasoning, whatever that says; rewards that are built
around a judge (`twice`, `progress`) put their own words after it, or before an error.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from gymnast_core.types import Reward

_RATIONALE = re.compile(r"\[votes (\d[\d.]*(?: \d[\d.]*)*)[,;][^\[\]]*\]")
_ERROR = re.compile(r"(?:^|: )(tie|disagreement|undecided): votes (\d[\d.]*(?: \d[\d.]*)*)")


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


def votes_of(reward: Reward) -> tuple[float, ...]:
    """The votes that a judgement tells of; empty where it tells of none."""
    if reward.error is None:
        notes = list(_RATIONALE.finditer(reward.rationale))
        found = notes[-1] if notes else None
    else:
        found = _decided(reward.error)
        if found is None and reward.error.startswith("Not believed: "):  # `twice`, of a verdict that it was given
            found = _RATIONALE.search(reward.error)
    return tuple(float(vote) for vote in found[found.re.groups].split()) if found else ()


def abstained(error: str) -> bool:
    """Whether the judge was heard and gave no verdict (a tie, disagreement, refusal), rather than not heard in full."""
    found = _decided(error)
    return "the model refused" in error or (found is not None and found[1] != "undecided")


def _decided(error: str) -> re.Match[str] | None:
    """What votes came to: the first that the error speaks of. An ensemble says in brackets what its members said."""
    found = _ERROR.search(error)
    return None if found is None or "(" in error[: found.start()] else found


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
