"""Progress of long work on a terminal (a live bar) or in a log file (a line now and then)."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping


class Progress:
    """Reports steps done, rate, time left and a few numbers of the moment.

    >>> with Progress("Fitting", total=1000) as progress:
    ...     progress.update(1, {"loss": 0.5})
    """

    def __init__(
        self, title: str, total: int, *, unit: str = "step", start: int = 0, log_seconds: float = 10.0
    ) -> None:
        self.title, self.total, self.unit, self.start = title, total, unit, start
        self.log_seconds = log_seconds
        self._live = sys.stderr.isatty()
        self._began = self._last = time.monotonic()

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

    def update(self, done: int, numbers: Mapping[str, float]) -> None:
        """`done` counts from the beginning of the whole work, including what an earlier process did."""
        text = "  ".join(f"{key} {_short(value)}" for key, value in numbers.items())
        if self._live:
            self._rich.update(self._task, completed=done, numbers=text)
            return
        now = time.monotonic()
        if now - self._last < self.log_seconds and done < self.total:
            return
        self._last = now
        rate = (done - self.start) / max(now - self._began, 1e-9)
        left = (self.total - done) / rate if rate > 0 else float("inf")
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


def _short(value: float) -> str:
    return f"{value:d}" if isinstance(value, int) else f"{value:.3g}"


def _clock(seconds: float) -> str:
    if seconds == float("inf"):
        return "?"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}" if minutes >= 60 else f"{minutes}:{rest:02d}"
