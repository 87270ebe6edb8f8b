"""The command `gymnast convert`."""

from __future__ import annotations

import contextlib
import sys
import time
from pathlib import Path

import click

from gymnast_core.cli import print_summary
from gymnast_core.errors import ConfigError

_SECONDS_BETWEEN_LINES = 10.0


@click.command()
@click.argument("arguments", nargs=-1, metavar="DATASET [KEY=VALUE]... OUT")
@click.option("--to", "to", required=True, metavar="FORMAT", help="lerobot-v3, lerobot-v2.1, worldgym, trials, ...")
@click.option("--robot", metavar="ROBOT", help="Robot whose units the actions are in; worldgym stores model units.")
@click.option("--fps", default=10, show_default=True, type=click.IntRange(1, 1000), help="Frames a second of videos.")
@click.option(
    "--pixel-format",
    default="yuv444p",
    show_default=True,
    type=click.Choice(["yuv444p", "yuv420p"]),
    help="yuv444p keeps colours exact to the pixel; yuv420p plays in every browser.",
)
def convert(arguments: tuple[str, ...], to: str, robot: str | None, fps: int, pixel_format: str) -> None:
    """Write the episodes of any dataset as a folder of another format.

    DATASET is the name of an installed dataset that holds episodes (`gymnast plugins`), KEY=VALUE its arguments, OUT
    the folder to write. Interrupted or killed, the same command continues.

    \b
    gymnast convert worldgym-episodes path=bridge skip_bad=true instruction="..." --to lerobot-v3 bridge-lerobot
    gymnast convert lerobot path=DIR --to worldgym --robot bridge OUT
    """
    from gymnast_core.config import parse_overrides
    from gymnast_episodes.conversion import Conversion
    from gymnast_episodes.conversion import convert as run
    from gymnast_episodes.writers import WriterOptions

    names = [argument for argument in arguments if "=" not in argument]
    if len(names) != 2:
        raise ConfigError(
            f"Give a dataset and the folder to write, not {' '.join(names) or 'nothing'}: "
            "gymnast convert DATASET path=DIR --to FORMAT OUT"
        )
    if robot is not None:
        from gymnast_episodes.robots import robot as known_robot

        known_robot(robot)
    args = parse_overrides([argument for argument in arguments if "=" in argument])
    options = WriterOptions(fps=fps, robot=robot, pixel_format=pixel_format)
    summary = None
    with contextlib.suppress(KeyboardInterrupt):
        summary = run(Conversion(names[0], args, to, Path(names[1]), options), _Progress())
    if summary is None:
        click.echo("\nInterrupted. The same command continues.", err=True)
        sys.exit(130)
    print_summary(summary)


class _Progress:
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
