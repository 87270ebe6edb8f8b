"""What a headline may claim: one rule for the pages of all commands.

- Success is what a judge of success says; a mean reward, and what coin flips say, is never called so (`Measure`).
- With fewer than `FEW` trials, the interval comes first: a rate of four trials says next to nothing.
- A change is a gain or a loss where its 95 % interval lies on one side of zero; else none is shown.
- A judge is right more often than one answer to everything where the interval of its accuracy lies above that.
- "Best" is what gains over its baseline for sure, also considering that the best of several was chosen; among
  policies, what is proven to beat every other one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from gymnast_core.statistics import CONFIDENCE, Interval
from gymnast_pages import wording
from gymnast_pages.measure import Measure
from gymnast_pages.wording import counted

FEW = 30
"""Trials below which a headline gives the interval before the rate."""


@dataclass(frozen=True)
class Change:
    """A difference from a baseline."""

    mean: float
    interval: Interval | None = None
    """95 %; None: unknown, so that nothing is claimed."""
    n: int = 0
    """Pairs that it rests on."""
    degrees: int | None = None
    """Degrees of freedom of the Student's t interval, one fewer than the seeds; None: bounds of another kind, taken to
    scale as those of a normal distribution."""

    @property
    def proven(self) -> int:
        """1 for a gain, −1 for a loss, 0 where neither is shown."""
        if self.interval is None:
            return 0
        return 1 if self.interval[0] > 0 else -1 if self.interval[1] < 0 else 0

    def among(self, candidates: int) -> Change:
        """The change with an interval that holds for all of so many candidates together (Bonferroni), from which one
        was chosen after looking: bounds move away from the mean as the quantiles of its distribution do, which is far
        with few seeds (of 3 seeds and 10 candidates 3.3 times, where a normal distribution says 1.4)."""
        if self.interval is None or candidates < 2:
            return self
        level = 1 - (1 - CONFIDENCE) / candidates
        from scipy import stats

        quantile = stats.norm.ppf if self.degrees is None else stats.t(self.degrees).ppf
        wider = float(quantile(0.5 + level / 2) / quantile(0.5 + CONFIDENCE / 2))
        low, high = (self.mean + wider * (bound - self.mean) for bound in self.interval)
        return replace(self, interval=(low, high))


def rate(measure: Measure, value: float | None, interval: Sequence[float] | None, n: int) -> str:
    """ "68.0 %", "30.1 % to 95.4 % (75.0 % of 4 trials)" of few trials, or "unscored"."""
    if value is None:
        return measure.value(None)
    if n >= FEW:
        return measure.value(value)
    if interval is None:
        return f"{measure.value(value)} in only {counted(n, 'trial')}"
    place = f"{measure.value(value)} of" if measure.is_success else f"mean {measure.value(value)} of"
    return f"{measure.interval(interval)} ({place} {counted(n, 'trial')})"


def accuracy(
    judge: Measure, right: float, interval: Sequence[float] | None, n: int, *, guessing: float, threshold: float = 0.0
) -> str:
    """The headline of a judge that was asked about clips whose outcome is known: how often it was right, and whether
    that is more than the share that one answer to everything is right about (`guessing`). A score above `threshold`
    stands for success."""
    share = f"{wording.percent(right)} of clips"
    if n < FEW:
        low = "" if interval is None else f"{wording.interval(interval)} of clips "
        share = f"{low}({wording.percent(right)} of {counted(n, 'clip')})" if low else f"{share}, of only {n}"
    if judge.is_chance:
        return f"{judge.judge} flips coins: right about {share}"
    name = judge.judge if judge.kind == "success" else f"A reward above {threshold:g} by {judge.judge}"
    if interval is not None and interval[0] > guessing:
        return f"{name} is right about {share}"
    if interval is not None and interval[1] < guessing:
        return f"{name} does worse than one answer to everything: right about {share}"
    return f"{name} is not shown to do better than one answer to everything: right about {share}"


def change(measure: Measure, before: float | None, after: float | None, found: Change | None) -> str:
    """The headline of a before and an after: what was shown, and of few trials the interval first."""
    name = "Task success" if measure.is_success else measure.title
    numbers = f"{measure.value(before)} before, {measure.value(after)} after"
    if before is None or after is None:
        return f"{name}: {numbers}"
    if found is None or not found.proven:
        lower = name[0].lower() + name[1:] if measure.is_success else measure.name
        return f"No change of {lower} is shown: {numbers}"
    assert found.interval is not None
    word = "rose" if found.proven > 0 else "fell"
    between = f"from {measure.value(before)} to {measure.value(after)}"
    if 0 < found.n < FEW:
        return f"{name} {word} by {measure.changes(found.interval)}: {between}"
    return f"{name} {word} {between}"


@dataclass(frozen=True)
class Candidate:
    """One of several that a page compares with a baseline."""

    label: str
    value: float
    """Its mean."""
    gain: Change | None
    """Against its baseline; None where there is none."""


def best(measure: Measure, candidates: Sequence[Candidate], baseline: str) -> str:
    """The headline of several: the best one where it deserves that, else what is not shown. `baseline` says what gains
    are measured against, e.g. "the policy before training"."""
    known = [found for found in candidates if found.gain is not None]
    if not known:
        top = max(candidates, key=lambda found: found.value)
        return f"Nothing says what was gained; the highest {measure.name}: {top.label}, {measure.value(top.value)}"
    top = max(known, key=lambda found: found.gain.mean if found.gain else 0.0)
    assert top.gain is not None
    if len(known) == 1:
        what = {
            1: f"A gain over {baseline}",
            0: f"No difference from {baseline} is shown",
            -1: f"A loss against {baseline}",
        }
        return f"{what[top.gain.proven]}: {top.label}, {measure.change(top.gain.mean)}, to {measure.value(top.value)}"
    gain = top.gain.among(len(known))
    told = f"{top.label}, {measure.change(top.gain.mean)}, to {measure.value(top.value)}"
    if gain.proven > 0:
        return f"Best: {told}"
    if all(found.gain is not None and found.gain.among(len(known)).proven < 0 for found in known):
        return f"A loss against {baseline} in all {len(known)}; the smallest: {told}"
    return f"No gain over {baseline} is shown; the {'largest' if top.gain.mean >= 0 else 'smallest loss'}: {told}"


def first_of(measure: Measure, place: str, order: Sequence[tuple[str, float | None]], proven: Sequence[bool]) -> str:
    """The headline of a ranking, best first: `proven[i]` says whether the first is shown to beat the i-th of the rest
    (corrected for the number of pairs). Those with the same value as the first tie with it, and none of them is named
    alone."""
    (name, value), rest = order[0], order[1:]
    tied = [other for other, theirs in order if theirs == value]
    if len(tied) > 1:
        who = f"All {len(tied)}" if len(tied) == len(order) > 2 else f"{', '.join(tied[:-1])} and {tied[-1]}"
        where = place if len(tied) == len(order) else f"{place} for the first place"
        return f"{who} tie in {where} with {measure.value(value)}"
    verb = "succeeds most often" if measure.is_success else f"has the highest {measure.name}"
    if proven and all(proven):
        return f"{name} {verb} in {place}: {measure.value(value)}"
    close = [other for (other, _), shown in zip(rest, proven, strict=True) if not shown]
    among = close[0] if len(close) == 1 else f"{len(close)} of {len(rest)} others"
    return f"{name} is first in {place} with {measure.value(value)}, but not shown to beat {among}"
