"""The command `gymnast convert`."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import math
import re
import sys
from pathlib import Path

import click

from gymnast_core.cli import print_summary
from gymnast_core.errors import ConfigError

_OVERRIDE = re.compile(r"[A-Za-z_][\w.]*=")
"""How an argument begins that is no name: those of folders begin otherwise, or are last."""


@click.command()
@click.argument("arguments", nargs=-1, metavar="DATASET [KEY=VALUE]... OUT")
@click.option("--to", "to", required=True, metavar="FORMAT", help="lerobot-v3, lerobot-v2.1, worldgym, trials, ...")
@click.option("--robot", metavar="ROBOT", help="Robot whose units the actions are in; worldgym stores model units.")
@click.option(
    "--fps",
    type=click.FloatRange(0, 1000, min_open=True),
    callback=lambda _, option, value: _finite(option, value),
    help="Frames a second of videos. Without it: the source's; needed where the source does not know.",
)
@click.option(
    "--pixel-format",
    default="yuv444p",
    show_default=True,
    type=click.Choice(["yuv444p", "yuv420p", "rgb24"]),
    help="Of videos. yuv444p: near-lossless, a colour a pixel; yuv420p plays in every browser; rgb24: lossless.",
)
@click.option(
    "--frames",
    default="video",
    show_default=True,
    type=click.Choice(["video", "png"]),
    help="png: lossless pictures inside the tables of lerobot-v3 and lerobot-v2.1.",
)
def convert(
    arguments: tuple[str, ...], to: str, robot: str | None, fps: float | None, pixel_format: str, frames: str
) -> None:
    """Write the episodes of any dataset as a folder of another format.

    DATASET is the name of an installed dataset that holds episodes (`gymnast plugins`), KEY=VALUE its arguments, OUT
    the folder to write. Cameras, readings, names and the frame rate are kept where the format can hold them; what it
    cannot hold is told. With skip_bad=true, episodes that cannot be read are left out. Interrupted or killed, the same
    command continues.

    \b
    gymnast convert worldgym-episodes path=bridge skip_bad=true instruction="..." --to lerobot-v3 bridge-lerobot
    gymnast convert lerobot path=DIR --to worldgym --robot bridge OUT
    """
    from gymnast_core.plugins.compose import registries
    from gymnast_core.plugins.places import arguments_of
    from gymnast_episodes.conversion import Conversion, convert_visibly
    from gymnast_episodes.writers import WriterOptions

    dataset, out, overrides = _sorted_out(arguments)
    if robot is not None:
        from gymnast_episodes.robots import robot as known_robot

        known_robot(robot)
    args = arguments_of(registries().datasets, dataset, overrides)
    options = WriterOptions(fps=fps, robot=robot, pixel_format=pixel_format, frames=frames)
    summary = None
    with contextlib.suppress(KeyboardInterrupt):
        summary = convert_visibly(Conversion(dataset, args, to, Path(out), options))
    if summary is None:
        click.echo("\nInterrupted. The same command continues.", err=True)
        sys.exit(130)
    print_summary(summary)


def _finite(option: click.Parameter, value: float | None) -> float | None:
    if value is not None and not math.isfinite(value):
        raise click.BadParameter(f"{value} is no number of frames.", param=option)
    return value


def _sorted_out(arguments: tuple[str, ...]) -> tuple[str, str, list[str]]:
    """The dataset's name, the folder to write, and the overrides. A folder's name may hold "=", too."""
    overrides = [argument for argument in arguments if _OVERRIDE.match(argument)]
    names = [argument for argument in arguments if argument not in overrides]
    if len(names) == 1 and overrides and arguments[-1] == overrides[-1]:
        # The last argument is a folder named like lr=0.1, if the dataset has no such option.
        path = overrides[-1].partition("=")[0].split(".")
        known = _options(names[0])
        if known is not None and "args" not in path and not difflib.get_close_matches(path[0], known):
            names.append(overrides.pop())
    if len(names) != 2:
        raise ConfigError(
            f"Give a dataset and the folder to write, not {' '.join(names) or 'nothing'}: "
            "gymnast convert DATASET path=DIR --to FORMAT OUT (a folder named like an option: ./NAME=VALUE)"
        )
    return names[0], names[1], overrides


def _options(dataset: str) -> list[str] | None:
    """Names of a dataset's options; None if there is no such dataset."""
    from gymnast_core.errors import PluginError
    from gymnast_core.plugins.compose import registries

    try:
        return [field.name for field in dataclasses.fields(registries().datasets.load(dataset).Config)]
    except PluginError:
        return None
