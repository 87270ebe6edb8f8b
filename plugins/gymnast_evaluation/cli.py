"""The command `gymnast evaluate`."""

from __future__ import annotations

from pathlib import Path

import click

from gymnast_core.cli import RESUME, SOURCE_AND_OVERRIDES, print_summary
from gymnast_core.plugins.importing import undisturbed


@click.command()
@SOURCE_AND_OVERRIDES
@RESUME
@click.option("--imagined", is_flag=True, help="Of a run: in its world model, too, judged by its own judge.")
def evaluate(arguments: tuple[str, ...], resume: Path | None, imagined: bool) -> None:
    """Value of policies in worlds: Monte-Carlo rollouts on the same tasks and seeds, and what they prove.

    \b
    one policy, one world   policy=... world_model=... reward_model=...
    several of them         policies.LABEL=... worlds.LABEL=... rewards.LABEL=... (a judge for each world)
    how many                episodes=N (tasks) trials=N (rollouts of each) batch_size=N
    how                     horizon=N temperature=X seed=N device=auto|cpu|cuda reference=WORLD
    what is kept            videos=N (trials filmed) group_by=instruction|task output=FOLDER

    Reports success and partial credit with 95 % intervals, exact paired tests between policies, their ranking and how
    stable it is; for two worlds also how well one foretells the other (correlation, MMRV, mean difference). Writes
    results.jsonl (a row a trial), summary.json, and evaluation.html, a page that works offline. A trial that could not
    be judged is unscored, never a failure.

    A run's folder in place of a preset stands for what it left: the trained policy beside the one it began with, on its
    held-out tasks, in the world and by the judge of its evaluations.

    --resume goes on with a stopped evaluation, or adds what the overrides add, e.g. one more policy.

    \b
    gymnast evaluate evaluate-tabletop
    gymnast evaluate runs/RUN trials=5
    gymnast evaluate --resume RUN policies.mine.name=openvla-oft policies.mine.args.checkpoint=FOLDER
    """
    from gymnast_evaluation.from_run import evaluate_config

    config, taken = evaluate_config(arguments, resume, imagined=imagined)
    if taken:
        click.echo(taken, err=True)
    with undisturbed():
        from gymnast_evaluation.command import evaluate_command

    summary = evaluate_command(config, resume=resume)
    print_summary(summary)
    click.echo(f"Results: {summary['output']} (see evaluation.html there)")
