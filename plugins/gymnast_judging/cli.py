"""The commands `gymnast judge` and `gymnast rescore`."""

from __future__ import annotations

from pathlib import Path

import click

from gymnast_core.cli import RESUME, SOURCE_AND_OVERRIDES, config_from, print_summary
from gymnast_core.plugins.importing import undisturbed


@click.command()
@SOURCE_AND_OVERRIDES
@RESUME
def judge(arguments: tuple[str, ...], resume: Path | None) -> None:
    """How good a reward model is, on clips whose outcome is known.

    \b
    who judges        reward_model=NAME reward_model.args.KEY=VALUE
    what              clips=DATASET (recorded episodes with `success`) episodes=N (from the first) camera=NAME
    how               threshold=X (value above which it is a success) rescore=N batch_size=N max_error_rate=X
    what is shown     bins=N (reliability diagram) videos=N (of each case) output=FOLDER

    Reports accuracy, precision, recall and false-positive rate with 95 % intervals, how well graded scores are
    calibrated, how far votes agree, and the cost. A clip without a verdict is counted apart, never as a mistake. Writes
    results.jsonl (a row a clip), summary.json, and confusion.html: videos of mistakes and hits that work offline.

    --resume asks about the clips that have no verdict yet.

    During a training, rewards are watched: RUN/alarms.jsonl and report.html say when they become constant or votes
    contradict each other. hooks.judging adds labelled clips that the judge is measured on again and again (canary), and
    a judge that knows better and looks at judged successes (audit):

    \b
    gymnast train tabletop hooks.judging.canary.name=tabletop-clips hooks.judging.canary_every=2
    gymnast train tabletop hooks.judging.audit.name=environment hooks.judging.audit.args.always_replay=true

    The tabletop makes labelled clips from seeds, no recording and no key needed:

    \b
    gymnast judge judge-tabletop
    gymnast judge reward_model=gpt-4o clips=tabletop-clips clips.args.image_size=256 episodes=50
    gymnast judge judge-tabletop clips=tabletop-episodes clips.args.path=FOLDER (of `python -m gymnast_tabletop.replay`:
                  the same on imagined frames)
    """
    from gymnast_judging.config import JudgeConfig

    config = config_from(JudgeConfig, arguments, resume)
    with undisturbed():
        from gymnast_judging.judge import judge_command

    summary = judge_command(config, resume=resume)
    print_summary(summary)
    click.echo(f"Results: {summary['output']} (see confusion.html there)")


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("overrides", nargs=-1, metavar="[reward_model=NAME] [reward_model.args.KEY=VALUE]...")
@click.option("--all", "all_rollouts", is_flag=True, help="Also the kept rollouts that were judged before.")
@click.option(
    "--max-error-rate", type=float, default=0.5, show_default=True, help="Share left unjudged above which it stops."
)
def rescore(run: Path, overrides: tuple[str, ...], all_rollouts: bool, max_error_rate: float) -> None:
    """Judge the rollouts that a run kept once more.

    RUN is a folder of `gymnast train` or `gymnast evaluate`: it keeps the rollouts that could not be judged, and of its
    newest iterations the others, too (--all). They are put to the judge that the run had, or to another one; what the
    first judge said is never changed. Writes RUN/rescored/JUDGE: results.jsonl (a row a rollout) and summary.json
    (success, or the mean reward of a judge that gives scores; agreement with the first judgement; cost).

    The same command goes on where it stopped, and asks again about what could not be judged.

    \b
    by the run's own judge    gymnast rescore RUN
    by another one            gymnast rescore RUN --all reward_model=claude reward_model.args.max_usd=5
    by what really happens    gymnast rescore RUN --all reward_model=environment reward_model.args.always_replay=true

    The last one executes imagined actions in the tasks' simulator: how often the judge was fooled.
    """
    from gymnast_judging.rescore import rescore_command

    print_summary(
        {"rescored": rescore_command(run, overrides, all_rollouts=all_rollouts, max_error_rate=max_error_rate)}
    )
