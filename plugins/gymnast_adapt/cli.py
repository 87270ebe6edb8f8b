"""The command `gymnast adapt`."""

from __future__ import annotations

from pathlib import Path

import click

from gymnast_core.cli import RESUME, SOURCE_AND_OVERRIDES, config_from, print_summary
from gymnast_core.plugins.importing import undisturbed


@click.command()
@SOURCE_AND_OVERRIDES
@RESUME
def adapt(arguments: tuple[str, ...], resume: Path | None) -> None:
    """Train a policy for the scene in front of the robot, in imagination; see what it gains there and loses elsewhere.

    \b
    the scene       pictures=[FILE,...] instruction="..." [image_size=[H,W]], or target=DATASET [targets=N]
    who and where   policy=... world_model=... reward_model=... optimizer=... loop.iterations=N
    what is kept    retention=DATASET [retained=N] measures other tasks before and after
                    protect.kl_coefficient=X | protect.tasks=DATASET protect.share=X | protect.lora_rank=N
    measuring       trials=N temperature=X; in the environment, too, where the tasks name one

    The adapted policy lies beside the original, in training/policy of the results; the original is not touched. Success
    on the target is judged by the judge that it was trained for, so believe the environment's, or another judge's,
    more. Writes training/ (a run of `gymnast train`), target/ and retention/ (of `gymnast evaluate`), summary.json and
    adapt.html.

    \b
    gymnast adapt adapt-tabletop
    gymnast adapt adapt-tabletop protect.lora_rank=8 protect.kl_coefficient=0.05
    """
    from gymnast_adapt.config import AdaptConfig

    config = config_from(AdaptConfig, arguments, resume)
    with undisturbed():
        from gymnast_adapt.command import adapt_command

    summary = adapt_command(config, resume=resume)
    print_summary(summary)
    click.echo(f"Results: {summary['output']} (see adapt.html there)")
