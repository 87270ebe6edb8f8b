"""The command `gymnast evaluate`."""

from __future__ import annotations

import click

from gymnast_core.cli import SOURCE_AND_OVERRIDES, config_from, print_summary


@click.command()
@SOURCE_AND_OVERRIDES
def evaluate(arguments: tuple[str, ...]) -> None:
    """Value of policies in worlds, with confidence intervals."""
    from gymnast_evaluation.config import EvaluateConfig

    config = config_from(EvaluateConfig, arguments, None)
    from gymnast_evaluation.command import evaluate_command

    print_summary(evaluate_command(config))
