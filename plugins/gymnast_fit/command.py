"""The command `gymnast fit`."""

from __future__ import annotations

from pathlib import Path

import click

from gymnast_core.cli import RESUME, SOURCE_AND_OVERRIDES, config_from, print_summary
from gymnast_core.plugins.importing import undisturbed


@click.command()
@SOURCE_AND_OVERRIDES
@RESUME
def fit(arguments: tuple[str, ...], resume: Path | None) -> None:
    """Supervised training of a world model, policy or reward model on recorded episodes.

    \b
    fit.microbatches=M      split each step's batch (memory); the step stays the same
    fit.workers=N           read episodes in N processes for each training process
    trainer.precision=bf16-mixed
    trainer.devices=2 trainer.strategy=ddp fit.microbatches=2
                            share the microbatches between two processes
    trainer.devices=2 trainer.strategy=fsdp2 fit.microbatches=2
                            share the weights, too (FSDP2; for components that define shard())

    Held-out episodes (validation=DATASET) give numbers in metrics.csv and, from components that illustrate, pictures
    in RUN/validation/step-…/. SIGTERM ends the training after its step with a snapshot and exit status 143; --resume
    goes on bit for bit.
    """
    from gymnast_fit.config import FitConfig

    config = config_from(FitConfig, arguments, resume)
    with undisturbed():
        from gymnast_fit.fit import fit as run

    summary = run(config, resume=resume)
    if summary:
        print_summary(summary)
