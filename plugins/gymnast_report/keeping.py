"""Keeping a run's page up to date while it works: at the cost of a small share of its time, and at its end for sure."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from gymnast_core.errors import GymnastError, StorageError
from gymnast_core.plugins.events import RunStarted
from gymnast_core.runs.ending import ending_of
from gymnast_pages import state as states
from gymnast_pages.state import State, write_state

logger = logging.getLogger(__name__)
SHARE = 0.02
"""Share of a run's time that its page takes at most, but for the pages that are always built."""


class PageKeeper:
    """Writes the state and the page of one run."""

    def __init__(self, event: RunStarted, clock: Callable[[], float] = time.monotonic) -> None:
        self.folder, self._clock = event.folder, clock
        self._state = State(
            states.RUNNING, event.step, event.total, event.unit, began=states.now(), first=event.step
        )  # fmt: skip
        self._cost, self._built = 0.0, -float("inf")
        self._complained = False

    def started(self) -> None:
        write_state(self.folder, self._state)
        self.build()

    def step_done(self) -> None:
        """Build the page, unless the last one is too fresh for what it cost."""
        if self._clock() - self._built >= self._cost * (1 - SHARE) / SHARE:
            self.build()

    def stopped(self, error: BaseException | None, step: int) -> None:
        """The steps are over. A disk that refuses must not hide why: what cannot be written is logged."""
        try:
            if error is not None:
                ending = ending_of(error)
                write_state(self.folder, self._at(ending.name, step, ending.error))
            self.build()
        except GymnastError as failure:
            logger.warning("The state of the run could not be written: %s", failure)

    def finished(self, step: int) -> None:
        write_state(self.folder, self._at(states.FINISHED, step))

    def build(self) -> None:
        """Write the page; what is wrong with a file is said once, and stops nobody. Raises `StorageError`."""
        from gymnast_report.report import build_report

        began = self._clock()
        try:
            build_report(self.folder)
        except StorageError:
            raise
        except GymnastError as error:
            if not self._complained:
                logger.warning("The page of the run could not be built: %s", error)
            self._complained = True
        self._built = self._clock()
        self._cost = self._built - began

    def _at(self, name: str, step: int, error: str = "") -> State:
        now = self._state
        return State(name, step, now.total, now.unit, error, now.began, now.first)
