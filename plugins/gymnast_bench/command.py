"""The command `gymnast bench`."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from gymnast_core.cli import RESUME, SOURCE_AND_OVERRIDES, config_from, print_summary


@click.command()
@SOURCE_AND_OVERRIDES
@RESUME
def bench(arguments: tuple[str, ...], resume: Path | None) -> None:
    """Train every combination of components and arguments, each in processes of its own, and compare them in a table.

    \b
    # matrix.yaml
    kind: bench
    base: tabletop                       # preset or YAML file of gymnast train
    axes:                                # axis -> {label: overrides}
      optimizer:
        grpo: []
        rloo:                            # args go with the name: give all that matter
          - "optimizer={name: rloo, args: {group_size: 8, learning_rate: 1.5e-4,
            warmup_updates: 5, minibatch_size: 96, learning_rate_decay_updates: 34}}"
      world:
        imagination: []
        simulator: [world_model=gymnasium, reward_model=environment]
    exclude: [{optimizer: rloo, world: simulator}]
    adjust: [{when: {seed: 2}, overrides: [tasks.args.first=4096]}]
    seeds: [1, 2]
    jobs: 2                              # cells at once
    budget: {minutes: 30, dollars: 1.0}  # of each cell

    A component's arguments belong to its name: those of the base are dropped where an override names another one, which
    then has its own defaults. Before the first cell runs, the bench says what is dropped, as its page does.

    A crash, memory that runs out, or a budget that is used up is that cell's result; the others go on. Judging dollars
    are seen once a draw of rollouts is judged; a judge's own limit (its argument max_usd) is exact. Exit status: 0 if
    every cell ended or used up its budget, 1 if one crashed, ran out of memory, was killed or lost with its machine, or
    costs nobody knows how much although its dollars are limited.

    --resume goes on after a stop of any kind: cells that have ended keep their result, begun ones continue from their
    last snapshot. It also runs what was added to the matrix (axes.AXIS.LABEL=[...], seeds=[...]), and with retry=true
    what failed.

    Writes rows.jsonl, rows.parquet, summary.json and report.html (results over seeds, a sortable table of cells,
    learning curves, cost, and the command that repeats each cell); cells/NAME/run is the cell's run folder.

    \b
    gymnast bench matrix.yaml jobs=4
    gymnast bench matrix.yaml executor=ray address=auto gpus=1 jobs=16
    gymnast bench --resume RUN retry=true budget.minutes=60
    """
    from gymnast_bench.config import BenchConfig

    config = config_from(BenchConfig, arguments, resume)
    from gymnast_bench.bench import bench_command

    summary = bench_command(config, resume=resume)
    print_summary(summary)
    click.echo(f"Results: {summary['output']} (see report.html there)")
    if not all_ended(summary):
        sys.exit(1)


def all_ended(summary: Mapping[str, Any]) -> bool:
    """Whether every cell ended or used up its budget; says on stderr which did not, and how to go on."""
    from gymnast_bench.rows import UNFINISHED
    from gymnast_bench.supervisor import FAILURES
    from gymnast_core.runs.commands import resume_command

    statuses, cells = summary["statuses"], f"of {summary['cells']} cells"
    go_on = resume_command("bench", Path(summary["output"]))
    failed = sum(statuses.get(status, 0) for status in FAILURES)
    lost = statuses.get(UNFINISHED, 0)
    if failed:
        click.echo(f"{failed} {cells} failed; to try them again: {go_on} retry=true", err=True)
    if lost:
        click.echo(f"{lost} {cells} were lost with their machine; to go on with them: {go_on}", err=True)
    return not (failed or lost)
