"""Which episodes of a source can be read: told as it goes, remembered, and put off where each is read once anyway."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Protocol

from gymnast_core.errors import DataError

log = logging.getLogger(__name__)

SECONDS_BETWEEN_LINES = 10.0
_put_off: ContextVar[bool] = ContextVar("checks_put_off", default=False)
_remembered: dict[tuple[str, str], str | None] = {}
"""(what was read, with which options and in which state) -> the fault, or None."""


class Checkable(Protocol):
    """What a check asks of a source."""

    @property
    def name(self) -> str: ...

    def label(self, episode: int) -> str: ...

    def frames(self, episode: int) -> int: ...

    def state(self, episode: int) -> str:
        """A text that changes whenever the episode's files, or how they are read, do."""

    def check(self, episode: int) -> None:
        """Read the episode from end to end. Raises `DataError` if that cannot be done."""


@contextmanager
def checks_put_off() -> Iterator[None]:
    """Within, `skip_bad` leaves out what the metadata shows to be bad, and reads nothing ahead: for whoever reads every
    episode once, and passes over those that raise `DataError`."""
    token = _put_off.set(True)
    try:
        yield
    finally:
        _put_off.reset(token)


def put_off() -> bool:
    """Whether checks are put off."""
    return _put_off.get()


def readable(source: Checkable, episodes: Sequence[int], skip_bad: bool) -> dict[int, int]:
    """Frames of each episode; with `skip_bad`, only of those that can be read from end to end.

    An episode that was checked before in this process is not read again while its files stay as they are. Progress and
    every episode that is left out are logged.
    """
    found: dict[int, int] = {}
    bad, progress = 0, Progress(source.name, len(episodes), "checked (skip_bad reads each one once)")
    for number, episode in enumerate(episodes):
        try:
            frames = source.frames(episode)
            if skip_bad and frames > 1 and not put_off():
                progress.tell(number)
                _check(source, episode)
        except DataError as error:
            if not skip_bad:
                raise
            bad += 1
            log.warning("Skipped %s/%s: %s", source.name, source.label(episode), error)
        else:
            found[episode] = frames
    progress.end()
    if bad:
        log.warning("%s: %d bad episodes skipped, %d are good.", source.name, bad, len(found))
    return found


def _check(source: Checkable, episode: int) -> None:
    key = (source.label(episode), source.state(episode))
    if key not in _remembered:
        try:
            source.check(episode)
            _remembered[key] = None
        except DataError as error:
            _remembered[key] = str(error)
    if (fault := _remembered[key]) is not None:
        raise DataError(fault)


class Progress:
    """A line now and then: how many episodes are `what`, how many a second, and the time left."""

    def __init__(self, name: str, total: int, what: str) -> None:
        self._name, self._total, self._what = name, total, what
        self._began = self._told = time.monotonic()
        self._spoke = False

    def tell(self, done: int) -> None:
        now = time.monotonic()
        if not done or now - self._told < SECONDS_BETWEEN_LINES:
            return
        rate = done / (now - self._began)
        line = "%s: %d of %d episodes %s, %.1f a second, %.0f s left."
        log.warning(line, self._name, done, self._total, self._what, rate, (self._total - done) / rate)
        self._told, self._spoke = now, True

    def end(self) -> None:
        if self._spoke:
            seconds = time.monotonic() - self._began
            log.warning("%s: %d episodes %s in %.0f s.", self._name, self._total, self._what, seconds)
