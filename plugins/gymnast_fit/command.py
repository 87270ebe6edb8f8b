"""The command `gymnast fit`."""

from __future__ import annotations

from pathlib import Path

import click

from gymnast_core.cli import RESUME, SOURCE_AND_OVERRIDES, config_from, print_summary


@click.command()
@SOURCE_AND_OVERRIDES
@RESUME
def fit(arguments: tuple[str, ...], resume: Path | None) -> None:
    """Supervised training of a world model, policy or reward model on recorded episodes."""
    from gymnast_fit.config import FitConfig

    config = config_from(FitConfig, arguments, resume)
    from gymnast_fit.fit import fit as run

    print_summary(run(config, resume=resume))
