"""The command `gymnast dyna`."""

from __future__ import annotations

from pathlib import Path

import click

from gymnast_core.cli import RESUME, SOURCE_AND_OVERRIDES, config_from, print_summary
from gymnast_core.plugins.importing import undisturbed


@click.command()
@SOURCE_AND_OVERRIDES
@RESUME
def dyna(arguments: tuple[str, ...], resume: Path | None) -> None:
    """Rounds of recording the policy, refitting the world model and the judge, and practising in them.

    \b
    parts        policy=... world_model=... reward_model=...
    a round      collect.KEY=... (of gymnast collect; the policy acts), or recordings=[FOLDER, ...] that a person adds
                 world.fit.KEY=... judge.fit.KEY=... (of gymnast fit), world.earlier=DATASET world.times=N
                 train.KEY=... (of gymnast train), evaluate.KEY=... (of gymnast evaluate)
    how long     rounds=N stop.least_gain=0.02 stop.patience=N; begin=train practises once before the first recording

    Each stage is a run of its own: round-1/collect, round-1/world_model, round-1/reward_model, round-1/train, ... and
    evaluation, which measures the policies of all rounds on the same tasks and seeds. --resume goes on wherever it
    stopped, and adds rounds or recordings. dyna.html shows the rounds side by side.

    \b
    gymnast dyna dyna-tabletop
    gymnast dyna --resume RUN rounds=3
    """
    from gymnast_dyna.config import DynaConfig

    config = config_from(DynaConfig, arguments, resume)
    with undisturbed():
        from gymnast_dyna.command import dyna_command

    summary = dyna_command(config, resume=resume)
    print_summary(summary)
    click.echo(f"Results: {summary['output']} (see dyna.html there)")
