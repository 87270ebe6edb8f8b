"""The command `gymnast imagine`."""

from __future__ import annotations

import click

from gymnast_core.cli import SOURCE_AND_OVERRIDES, config_from, print_summary
from gymnast_core.plugins.importing import undisturbed


@click.command()
@SOURCE_AND_OVERRIDES
def imagine(arguments: tuple[str, ...]) -> None:
    """See what a world model shows when it is given actions: videos, and numbers where the truth is known.

    \b
    actions=episode   recorded actions, beside the recorded frames    episodes=... [index=[0,1] start=N samples=N]
    actions=sweep     each action dimension from -a to +a, in a grid  [amplitude=[a,...] sweep.values=N sweep.frames=N]
    actions=keyboard  your keys, on a web page of this machine        [keyboard.port=N keyboard.keys=[...]]
    actions=file      actions from a .json or .npz file               file=PATH

    All but `episode` start from one frame: image=FILE, or the task or the episode at index=[N] of tasks=... or
    episodes=.... beside=WORLD runs a second world, e.g. a simulator, under the same actions. chunk, context, horizon,
    samples, seed, fps and output are further keys; an unknown key is an error that lists the known ones.

    The keyboard's page is for this machine only; from another one, fix keyboard.port and forward the same port
    (ssh -L PORT:127.0.0.1:PORT HOST). Ctrl-C ends it and saves what was not.

    \b
    gymnast imagine imagine-tabletop
    gymnast imagine imagine-tabletop actions=keyboard
    """
    from gymnast_imagine.config import ImagineConfig

    config = config_from(ImagineConfig, arguments, None)
    with undisturbed():
        from gymnast_imagine.command import imagine_command

    print_summary(imagine_command(config))
