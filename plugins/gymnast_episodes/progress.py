"""What a conversion says while it works."""

from __future__ import annotations

import sys
import time

import click

_SECONDS_BETWEEN_LINES = 10.0


class ProgressLine:
    """Episodes done, rate and time left, on stderr: one line that changes, or a line now and then for a log."""

    def __init__(self) -> None:
        self._live = sys.stderr.isatty()
        self._began: float | None = None
        self._before = 0
        self._shown = 0.0

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        if self._began is None:
            self._began, self._before = now, done
        if done < total and now - self._shown < (0.2 if self._live else _SECONDS_BETWEEN_LINES):
            return
        self._shown, line = now, f"{done} of {total} episodes"
        if done > self._before:
            rate = (done - self._before) / (now - self._began)
            line += f", {rate:.2f} a second, {(total - done) / rate:,.0f} s left"
        click.echo(f"\r\033[K{line}" if self._live else line, err=True, nl=not self._live or done == total)
