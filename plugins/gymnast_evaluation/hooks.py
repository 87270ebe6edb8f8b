"""The hook through which a training run measures its policy."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gymnast_core.config import RunConfig
    from gymnast_core.interfaces import Policy


def gymnast_evaluate(config: RunConfig, policy: Policy, label: str, iteration: int) -> dict[str, Any] | None:
    """Success on the held-out tasks of `config.evaluation`, and its difference from the evaluation "before".

    The result is kept in RUN/evaluations; a resumed run does not repeat what is there.
    """
    part = config.evaluation
    if part.tasks is None or config.output is None:
        return None
    from gymnast_evaluation.results import evaluation_from_json, paired_difference

    folder = Path(config.output) / "evaluations"
    path = folder / f"{label}.json"
    if not path.exists() or json.loads(path.read_text())["iteration"] != iteration:
        _measure(config, policy, label, iteration, folder)
    result = evaluation_from_json(json.loads(path.read_text()))
    summary = {key: getattr(result, key) for key in ("rate", "interval", "n", "unscored", "world")}
    if label != "before" and (folder / "before.json").exists():
        before = evaluation_from_json(json.loads((folder / "before.json").read_text()))
        summary["difference"] = asdict(paired_difference(before, result))
    return summary


def _measure(config: RunConfig, policy: Policy, label: str, iteration: int, folder: Path) -> None:
    from gymnast_core.plugins.compose import registries
    from gymnast_core.plugins.hooks import Notify
    from gymnast_core.runs.atomic import write_json
    from gymnast_evaluation.evaluate import evaluate, load_tasks

    part, known = config.evaluation, registries()
    assert part.tasks is not None
    world = known.world_models.build(part.world.name, part.world.args)
    judge = known.reward_models.build(part.reward_model.name, part.reward_model.args)
    try:
        result, rollouts, rewards = evaluate(
            policy,
            world,
            judge,
            load_tasks(part.tasks),
            label=label,
            names=(part.world.name, part.reward_model.name),
            horizon=config.loop.horizon,
            temperature=part.temperature,
            seed=config.seed,
            iteration=iteration,
            batch_size=config.loop.imagine_batch_size,
        )
    finally:
        world.close()
        judge.close()
    Notify().gymnast_evaluation_done(
        config=config, label=label, world=part.world.name, rollouts=rollouts, rewards=rewards
    )
    write_json(folder / f"{label}.json", asdict(result))


def gymnast_run_done(config: Any, summary: dict[str, Any]) -> None:
    """One sentence on what the training changed."""
    if "difference" not in summary:
        return
    import click

    before, after, difference = summary["before"], summary["after"], summary["difference"]
    low, high = (100 * bound for bound in difference["interval"])
    click.echo(
        f"Success in {after['world']!r}: {100 * before['rate']:.1f} % before, {100 * after['rate']:.1f} % after: "
        f"{100 * difference['mean']:+.1f} points [95 % interval {low:+.1f} to {high:+.1f}], "
        f"{difference['n']} paired episodes."
    )
