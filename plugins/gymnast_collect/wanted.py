"""Which attempts a recording still needs, in the one order in which their episodes are written."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from gymnast_core.errors import DataError

Attempt = tuple[int, int]
"""(family, number within it), from 0."""


@dataclass
class _Progress:
    """One family."""

    label: str
    count: int
    """Episodes to keep."""
    most: int
    """Attempts there may be."""
    decided: int = 0
    kept: float = 0


@dataclass
class Wanted:
    """Decides attempt by attempt. What comes next follows from the decisions before alone."""

    families: list[_Progress] = field(default_factory=list)
    interleaved: bool = False
    _turn: int = 0

    @classmethod
    def of(cls, families: Sequence[tuple[str, int, int]], *, interleaved: bool) -> Wanted:
        """From (label, episodes to keep, attempts at most) of each family."""
        return cls([_Progress(*family) for family in families], interleaved)

    @property
    def next(self) -> Attempt | None:
        """The attempt whose decision is due; None at the end."""
        count = len(self.families)
        for place in range(count):
            number = (self._turn + place) % count if self.interleaved else place
            family = self.families[number]
            if family.kept < family.count:
                return number, family.decided
        return None

    def decide(self, kept: float) -> None:
        """Whether the episode of the attempt `next` is kept (1) or not (0)."""
        due = self.next
        assert due is not None, "nothing is wanted any more"
        family = self.families[due[0]]
        family.decided += 1
        family.kept += kept
        self._turn = (due[0] + 1) % len(self.families)

    def check(self) -> None:
        """Raises `DataError` if the attempt that is due is one too many."""
        due = self.next
        if due is not None and due[1] >= self.families[due[0]].most:
            family = self.families[due[0]]
            raise DataError(
                f"{family.label!r}: {family.kept:g} of {family.count} episodes after {family.decided} attempts, and no "
                "more are allowed. Raise attempts=N (a resumed recording may), list more seeds, or let another actor "
                "act."
            )

    def ahead(self, window: int, known: Callable[[Attempt], bool | None]) -> Iterator[Attempt]:
        """The next attempts that will probably be needed: decisions that are `known`, and for the others what share of
        the family's attempts was kept so far."""
        guess = Wanted([replace(family) for family in self.families], self.interleaved, self._turn)
        for _ in range(window):
            due = guess.next
            if due is None or due[1] >= guess.families[due[0]].most:
                return
            yield due
            so_far, sure = self.families[due[0]], known(due)
            guess.decide((so_far.kept + 1) / (so_far.decided + 1) if sure is None else float(sure))
