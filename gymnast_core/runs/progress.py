"""Progress of long work on a terminal (a live bar) or in a log file (a line a minute)."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping

FIRST_SECONDS = 10.0
"""After so many seconds a log file gets its first line, so that one sees that there is progress."""
SAID_SECONDS = 2.0
"""On a terminal, sentences stay this many seconds apart, lest they chase each other."""


class Progress:
    """Reports steps done, rate, time left and a few numbers of the moment.

    >>> with Progress("Fitting", total=1000) as progress:
    ...     progress.update(1, {"loss": 0.5})
    """

    def __init__(
        self, title: str, total: int, *, unit: str = "step", start: int = 0, log_seconds: float = 60.0
    ) -> None:
        """`log_seconds` is how far apart the lines of a log file are, at least; the first comes sooner."""
        self.title, self.total, self.unit, self.start = title, total, unit, start
        self.log_seconds = log_seconds
        self._live = sys.stderr.isatty()
        self._began = time.monotonic()
        # The first line is due after FIRST_SECONDS.
        self._last = self._began - max(0.0, log_seconds - FIRST_SECONDS)

    def __enter__(self) -> Progress:
        if self._live:
            from rich.console import Console
            from rich.progress import (
                BarColumn,
                MofNCompleteColumn,
                TextColumn,
                TimeElapsedColumn,
                TimeRemainingColumn,
            )
            from rich.progress import Progress as RichProgress

            self._rich = RichProgress(
                TextColumn("[bold]{task.description}"),
                BarColumn(bar_width=24),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TextColumn("left"),
                TimeRemainingColumn(),
                TextColumn("{task.fields[numbers]}"),
                console=Console(stderr=True),
            )
            self._rich.start()
            self._task = self._rich.add_task(self.title, total=self.total, completed=self.start, numbers="")
        return self

    def update(self, done: int, numbers: Mapping[str, float | str], words: str | None = None) -> None:
        """`done` counts from the beginning of the whole work, including what an earlier process did.

        `words` say what the step brought, in a sentence's beginning; how long a step takes and what is left is added.
        A log file has them in place of counts, a terminal above its bar.
        """
        text = "  ".join(f"{key} {_short(value)}" for key, value in numbers.items())
        now = time.monotonic()
        rate = (done - self.start) / max(now - self._began, 1e-9)
        left = (self.total - done) / rate if rate > 0 else float("inf")
        said = None if words is None else _sentence(words, rate, left, done == self.total)
        if self._live:
            self._rich.update(self._task, completed=done, numbers=text)
            if said is not None and (now - self._last >= SAID_SECONDS or done == self.total):
                self._last = now
                self._rich.console.print(said, highlight=False, markup=False)
            return
        if now - self._last < self.log_seconds and done < self.total:
            return
        self._last = now
        if said is not None:
            print(said, file=sys.stderr, flush=True)
            return
        speed = f"{rate:.2f} {self.unit}s/s" if rate >= 1 else f"{1 / rate:.1f} s/{self.unit}" if rate > 0 else ""
        parts = (f"{self.title} {done}/{self.total}", speed, f"left {_clock(left)}", text)
        print(
            "  ".join(part for part in parts if part),
            file=sys.stderr,
            flush=True,
        )

    def __exit__(self, *exception: object) -> None:
        if self._live:
            self._rich.stop()


def spoken(seconds: float) -> str:
    """A duration as people say it: "0.4 s", "9 s", "1 min 20 s", "2 h 5 min"."""
    if seconds < 9.5:
        return f"{seconds:.1f} s" if seconds < 2 else f"{seconds:.0f} s"
    whole = round(seconds)
    minutes, rest = divmod(whole, 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _sentence(words: str, rate: float, left: float, is_last: bool) -> str:
    parts = [words]
    if rate > 0:
        parts.append(f"{spoken(1 / rate)} each")
        if not is_last:
            parts.append(f"about {spoken(left)} left")
    return ", ".join(parts)


def _short(value: float | str) -> str:
    if isinstance(value, str):
        return value
    return f"{value:d}" if isinstance(value, int) else f"{value:.3g}"


def _clock(seconds: float) -> str:
    if seconds == float("inf"):
        return "?"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}" if minutes >= 60 else f"{minutes}:{rest:02d}"
