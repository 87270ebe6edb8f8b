"""The command `gymnast collect`."""

from __future__ import annotations

from pathlib import Path

import click

from gymnast_core.cli import RESUME, SOURCE_AND_OVERRIDES, config_from, print_summary
from gymnast_core.plugins.importing import undisturbed


@click.command()
@SOURCE_AND_OVERRIDES
@RESUME
def collect(arguments: tuple[str, ...], resume: Path | None) -> None:
    """Record episodes in any Gymnasium environment, with success labels, all cameras, readings and the frame rate.

    \b
    where          environments=[{id: ID, args: {...}, count: N, first: SEED, instruction: TEXT}, ...]
    who acts       actor.kind=policy actor.policy=... | actor.kind=expert [actor.function=module:function] |
                   actor.kind=random [actor.hold=N]; or actors=[{kind: expert, weight: 3}, ...]
    noise on top   actor.noise.white=X actor.noise.drift=X actor.noise.gain=X (a number, or [least,most])
    how long       horizon=N [stop_after_success=N]
    what is kept   keep=all|successes
    how            view.KEY=... (cameras, proprio, success) hosting.KEY=... (workers, python) parallel=N seed=N
    as what        to=lerobot-v3 frames=lossless|video|png fps=N output=FOLDER

    Writes the recording (FOLDER/episodes, for the dataset `lerobot`), attempts.jsonl (a row an attempt: seed, actor,
    noise, success) and summary.json. Attempt i depends on the seed and i alone. --resume goes on with a recording
    that was interrupted or killed.

    \b
    gymnast collect collect-tabletop
    gymnast fit fit-tabletop-world-model episodes=lerobot episodes.args.path=RUN/episodes episodes.args.window=8
    """
    from gymnast_collect.config import CollectConfig

    config = config_from(CollectConfig, arguments, resume)
    with undisturbed():
        from gymnast_collect.command import collect_command

    print_summary(collect_command(config, resume=resume))
