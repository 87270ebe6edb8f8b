"""The command `gymnast gate`."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from gymnast_core.cli import RESUME, SOURCE_AND_OVERRIDES, config_from, print_summary
from gymnast_core.plugins.importing import undisturbed


@click.command()
@SOURCE_AND_OVERRIDES
@RESUME
def gate(arguments: tuple[str, ...], resume: Path | None) -> None:
    """Measure, before a training in imagination, what it rests on. Every config of `gymnast train` will do.

    \b
    policy     sampled success in the environment, overall and by task
    frames     open-loop PSNR of pixels that change and pixels that do not, beside
               copying the start frame, and under the actions of another episode
    actions    true success of the actions that the policy takes in imagination,
               against its success in the environment from the same starts
    judge      precision and recall, by task, on the policy's own imagined
               rollouts, whose actions are executed in the environment

    Every gate passes, fails, is unclear (its 95 % interval holds the wanted value, and there are too few cases), or is
    not measured; open ones say how many cases would decide. The environment is evaluation.world, its judge
    evaluation.reward_model. Where no environment stands behind the tasks, hooks.gate.auditor names a second judge, and
    an audit takes the place of the last two gates.

    \b
    how much       gate.rollouts=N gate.judged=N (of each group of tasks) gate.most_rollouts=N
    what is wanted gate.success_least=X gate.unchanged_late=DB gate.changed_gain=DB gate.action_lag=X
                   hooks.gate.precision=X hooks.gate.by=instruction|family

    Writes summary.json and gate.html, a page that works offline. Exit status: 0 if every gate passes, 1 if one fails, 3
    if none fails and one is open; 2 for errors. --resume goes on with a stopped measurement, or tries other bounds.

    \b
    gymnast gate tabletop
    gymnast gate runs/RUN/config.yaml policy.args.checkpoint=runs/RUN/policy
    gymnast gate tabletop && gymnast train tabletop hooks.gate.every=1
    """
    from gymnast_gate.config import GateConfig

    config = config_from(GateConfig, arguments, resume)
    with undisturbed():
        from gymnast_gate.command import exit_status, gate_command

    summary = gate_command(config, resume=resume)
    print_summary(summary)
    click.echo(f"Results: {summary['output']} (see gate.html there)")
    if status := exit_status(summary):
        sys.exit(status)
