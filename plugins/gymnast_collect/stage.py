"""Attempts, several at once, in environments that are lent and used again."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable

import numpy as np

from gymnast_collect.actors import Casting
from gymnast_collect.config import CollectConfig
from gymnast_collect.takes import Rate, Rolling, Take, lost, rate_of
from gymnast_collect.wanted import Attempt
from gymnast_core.errors import ConfigError
from gymnast_environment.environments import Environments, Live

log = logging.getLogger(__name__)

TRIES = 2
"""How often an attempt is made whose environment crashes."""


class Stage:
    """Holds the attempts under way; `advance` takes one action in each."""

    def __init__(self, config: CollectConfig, environments: Environments, casting: Casting) -> None:
        self.config, self._environments, self._casting = config, environments, casting
        self.rate: Rate | None = None
        """Of what was recorded; None before the first episode began."""
        self._rolling: dict[Attempt, Rolling] = {}
        self._tries: dict[Attempt, int] = {}
        self._trusted: set[str] = set()
        """Families of which an episode was begun: what goes wrong from then on is that attempt's fault."""

    @property
    def size(self) -> int:
        """Attempts under way."""
        return len(self._rolling)

    @property
    def running(self) -> Iterable[Attempt]:
        return self._rolling.keys()

    def begin(self, attempts: Iterable[Attempt]) -> list[Take]:
        """Start these; those that cannot be started are over. Raises `GymnastError` for what concerns all of them."""
        takes, again = self._begin(list(attempts))
        while again:
            found, again = self._begin(again)
            takes += found
        return takes

    def advance(self, wanted: Callable[[Attempt], bool]) -> list[Take]:
        """One action in every attempt that is still `wanted`; those that are over now."""
        for attempt in [attempt for attempt in self._rolling if not wanted(attempt)]:
            self._rolling.pop(attempt).live.release()
        rolling = list(self._rolling.values())
        advice = self._advice(rolling)
        actions = [one.act(advice.get(one.attempt))[None] for one in rolling]
        shown = self._environments.step([one.live for one in rolling], actions, lenient=True)
        for one, (sensed,) in zip(rolling, shown, strict=True):
            one.see(sensed)
        over = [one for one in rolling if one.over(self.config.horizon, self.config.stop_after_success)]
        return [take for one in over if (take := self._finish(one)) is not None]

    def clear(self) -> None:
        """Give every environment back."""
        while self._rolling:
            self._rolling.popitem()[1].live.release()

    def _advice(self, rolling: list[Rolling]) -> dict[Attempt, np.ndarray]:
        found: dict[Attempt, np.ndarray] = {}
        for function in dict.fromkeys(one.function for one in rolling if one.advised):
            asking = [one for one in rolling if one.advised and one.function == function]
            advice = self._environments.expert([one.live for one in asking], function)
            found |= {one.attempt: action_A for one, action_A in zip(asking, advice, strict=True)}
        return found

    def _finish(self, one: Rolling) -> Take | None:
        """What came of an attempt; None if it is to be tried again."""
        assert self.rate is not None
        del self._rolling[one.attempt]
        take = one.finish(self.rate)
        if take.episode is not None or not self._may_try_again(one.attempt, take.about["error"]):
            return take
        found = self.begin([one.attempt])
        return found[0] if found else None

    def _may_try_again(self, attempt: Attempt, reason: str) -> bool:
        self._tries[attempt] = self._tries.get(attempt, 0) + 1
        family = self.config.environments[attempt[0]]
        log.warning("%s/%d: %s", family.label, family.start(attempt[1]).seed, reason)
        return self._tries[attempt] < TRIES

    def _begin(self, attempts: list[Attempt]) -> tuple[list[Take], list[Attempt]]:
        """What is over already, and what is to be tried again."""
        takes, again = [], []
        for attempt, live in zip(attempts, self._reset(attempts), strict=True):
            family = self.config.environments[attempt[0]]
            if live.error is not None:
                live.release()
                if self._may_try_again(attempt, live.error):
                    again.append(attempt)
                else:
                    takes.append(lost(attempt, family, live.error))
                continue
            self._note_rate(live)
            self._rolling[attempt] = Rolling.begin(attempt, family, live, self._casting, self.config.view)
            self._trusted.add(family.label)
        return takes, again

    def _reset(self, attempts: list[Attempt]) -> list[Live]:
        families = [self.config.environments[family] for family, _ in attempts]
        starts = [family.start(number) for family, (_, number) in zip(families, attempts, strict=True)]
        trusted = all(family.label in self._trusted for family in families)
        return self._environments.reset(starts, lenient=trusted) if starts else []

    def _note_rate(self, live: Live) -> None:
        found = rate_of(live, self.config.fps, self.config.view)
        self.rate = self.rate or found
        if found.fps != self.rate.fps:
            raise ConfigError(
                f"The environments have different frame rates ({self.rate.fps:g} and {found.fps:g} a second, "
                f"{live.about.name}); a recording has one. Say which with fps=N, or record them one by one."
            )
