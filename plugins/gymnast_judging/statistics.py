"""How good a judge is: verdicts against the truth, and its graded scores against how often they come true."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gymnast_core.statistics import Interval, bootstrap_interval, wilson_interval


@dataclass(frozen=True)
class Share:
    """A part of a whole."""

    part: int
    n: int

    @property
    def value(self) -> float | None:
        """None where there are no cases."""
        return self.part / self.n if self.n else None

    @property
    def interval(self) -> Interval | None:
        """Wilson's 95 % interval; None where there are no cases."""
        return wilson_interval(self.part, self.n) if self.n else None


@dataclass(frozen=True)
class Confusion:
    """Verdicts by truth."""

    true_positive: int
    false_positive: int
    false_negative: int
    true_negative: int

    @classmethod
    def count(cls, verdicts: Sequence[bool], truths: Sequence[bool]) -> Confusion:
        pairs = list(zip(verdicts, truths, strict=True))
        return cls(*(pairs.count(pair) for pair in ((True, True), (True, False), (False, True), (False, False))))

    @property
    def n(self) -> int:
        return self.true_positive + self.false_positive + self.false_negative + self.true_negative

    @property
    def accuracy(self) -> Share:
        """Verdicts that are right."""
        return Share(self.true_positive + self.true_negative, self.n)

    @property
    def precision(self) -> Share:
        """Judged successes that are successes; depends on how many of the clips are."""
        return Share(self.true_positive, self.true_positive + self.false_positive)

    @property
    def recall(self) -> Share:
        """Successes that are judged so."""
        return Share(self.true_positive, self.true_positive + self.false_negative)

    @property
    def false_positive_rate(self) -> Share:
        """Failures that are judged successes: what a policy can learn to exploit."""
        return Share(self.false_positive, self.false_positive + self.true_negative)

    @property
    def guessing(self) -> float:
        """Accuracy of always giving the more frequent answer; 0 without clips."""
        successes = self.true_positive + self.false_negative
        return max(successes, self.n - successes) / self.n if self.n else 0.0


@dataclass(frozen=True)
class Bin:
    """Clips with graded scores in [low, high), the last bin closed."""

    low: float
    high: float
    n: int
    score: float
    """Their mean score."""
    successes: int
    """How many of them are successes."""

    @property
    def interval(self) -> Interval:
        """Wilson's 95 % interval of the share of successes."""
        return wilson_interval(self.successes, self.n)


@dataclass(frozen=True)
class Calibration:
    """Whether graded scores can be read as probabilities of success."""

    n: int
    bins: tuple[Bin, ...]
    """Those that hold a clip, of equal width."""
    brier: float
    """Mean squared difference of score and outcome (G. W. Brier, Mon. Weather Rev. 78, 1950): 0 is best."""
    brier_interval: Interval
    brier_of_base_rate: float
    """The same for always giving the share of successes; a judge that is not below it tells nothing."""

    @property
    def expected_error(self) -> float:
        """Expected calibration error over the bins (arXiv 1706.04599, eq. 3)."""
        return sum(abs(one.n * one.score - one.successes) for one in self.bins) / self.n


def calibration(scores: Sequence[float], truths: Sequence[bool], bins: int = 10) -> Calibration | None:
    """Calibration of scores in [0, 1]; None without any."""
    n = len(scores)
    if not n:
        return None
    members: dict[int, list[int]] = {}
    for i, score in enumerate(scores):
        members.setdefault(min(int(score * bins), bins - 1), []).append(i)
    squares = [(score - truth) ** 2 for score, truth in zip(scores, truths, strict=True)]
    base = sum(truths) / n
    return Calibration(
        n=n,
        bins=tuple(
            Bin(
                low=number / bins, high=(number + 1) / bins, n=len(chosen),
                score=sum(scores[i] for i in chosen) / len(chosen), successes=sum(truths[i] for i in chosen),
            )
            for number, chosen in sorted(members.items())
        ),
        brier=sum(squares) / n,
        brier_interval=bootstrap_interval(squares, bounds=(0.0, 1.0)),
        brier_of_base_rate=base * (1 - base),
    )  # fmt: skip
