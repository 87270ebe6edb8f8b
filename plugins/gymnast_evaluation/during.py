"""What a training run measures of its policy: success on held-out tasks, shared by all of its processes."""

from __future__ import annotations

import logging
import sys
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal

from gymnast_core.closing import closing
from gymnast_core.config import EvaluationConfig, RunConfig
from gymnast_core.errors import DataError
from gymnast_core.interfaces import Parts
from gymnast_core.plugins.compose import check_needs, load_tasks, registries
from gymnast_core.plugins.events import EvaluationDone, EvaluationWanted
from gymnast_core.plugins.hooks import tell
from gymnast_core.plugins.resuming import free_arguments
from gymnast_core.reading import read_object
from gymnast_core.runs.atomic import write_json
from gymnast_core.runs.results import MEASURING_PARTS, MeasuredWith
from gymnast_core.runs.spending import Payment, note
from gymnast_evaluation.evaluate import evaluate
from gymnast_evaluation.results import Evaluation, evaluation_from_json, paired_difference
from gymnast_pages.measure import Measure, judge_name

logger = logging.getLogger(__name__)
_WHEN = {"before": "before training", "after": "after training"}
"""What evaluations are called that do not stand between iterations."""


def check(config: RunConfig) -> None:
    """Refuse what would only show at the first evaluation. Raises `ConfigError`, `DataError`, `PluginError`."""
    part, known = config.evaluation, registries()
    if part.tasks is None:
        return
    known.reward_models.configure(part.reward_model.name, part.reward_model.args, key="evaluation.reward_model")
    task = load_tasks(part.tasks, "evaluation.tasks")[0]
    check_needs(config.policy, part.world, task, part.tasks.name, keys=("policy", "evaluation.world"))


def measure(event: EvaluationWanted) -> dict[str, Any]:
    """The summary of the evaluation `event.label`, the same in every process.

    The leader decides whether it is there already (a resumed run does not repeat it), and writes it. {} for what was to
    be measured before a training that has begun: it is too late for that.
    """
    processes, folder = event.parts.processes, event.folder / "evaluations"
    plan, leads_below = processes.broadcast(_plan(event, folder) if processes.leads else ("", 0))
    if plan == "too late":
        return {}
    if plan == "wanted":
        _measure_together(event, folder, leads_below)
    return processes.broadcast(_summary(folder, event.label) if processes.leads else {})


def forget_after(folder: Path, step: int) -> None:
    """A run goes on after `step` iterations: what was measured later was of policies that it has given up."""
    for path in sorted((folder / "evaluations").glob("*.json")):
        try:
            found = _read(path)
        except DataError:
            continue  # told when it is needed
        if found is not None and found.iteration > step:
            path.unlink()


def sentence(folder: Path) -> str | None:
    """What a training changed, from the run's folder; None if it was not measured before and after."""
    before, after = (_read(folder / "evaluations" / f"{label}.json") for label in ("before", "after"))
    if before is None or after is None:
        return None
    shown, difference = Measure(after.reward_kind, after.reward_model), paired_difference(before, after)
    interval = shown.changes(difference.interval)
    return (
        f"{shown.title} in {after.world!r}: {shown.value(before.rate)} before, {shown.value(after.rate)} after: "
        f"{shown.change(difference.mean)} [95 % interval {interval}], {difference.n} paired episodes."
    )


def _plan(event: EvaluationWanted, folder: Path) -> tuple[Literal["known", "wanted", "too late"], int]:
    """Whether the result is there, and below which trial all are the leader's, who alone films.

    Videos show the same tasks before and after, so that stays as it was, whatever batches and processes there are now.
    """
    found, before = _read(folder / f"{event.label}.json"), _read(folder / "before.json")
    earlier = None if before is None else before.batch_size
    leads_below = earlier or event.config.loop.imagine_batch_size
    # "before" is of iteration 0, whenever it is asked for.
    if found is not None and (found.iteration == event.step or event.label == "before"):
        return "known", leads_below
    if event.label == "before" and event.step > 0:
        logger.warning(
            "The policy was not measured before this training, or the result (%s) is gone. After %d iterations it is "
            "too late: the run goes on without it.", folder / "before.json", event.step,
        )  # fmt: skip
        return "too late", leads_below
    return "wanted", leads_below


def _measure_together(event: EvaluationWanted, folder: Path, leads_below: int) -> None:
    part: EvaluationConfig = event.config.evaluation
    policy, processes, known = event.parts.policy, event.parts.processes, registries()
    assert part.tasks is not None and policy is not None
    tasks = load_tasks(part.tasks, "evaluation.tasks")
    if processes.leads:
        when = _WHEN.get(event.label, f"after iteration {event.step}")
        print(f"Measuring the policy {when}: {len(tasks)} episodes in {part.world.name}", file=sys.stderr, flush=True)
    with ExitStack() as opened:
        name, args = part.reward_model.name, part.reward_model.args
        judge = opened.enter_context(closing(known.reward_models.build(name, args, key="evaluation.reward_model")))
        name, args = part.world.name, part.world.args
        world = opened.enter_context(closing(known.world_models.build(name, args, key="evaluation.world")))
        parts = Parts(
            policy=policy, world_model=world, reward_model=judge, tasks=tasks, config=event.config, processes=processes
        )
        # The policy knows the parts of the run that it is trained in.
        for component in (world, judge):
            component.attach(parts)
        result, rollouts, rewards = evaluate(
            policy, world, judge, tasks, label=event.label, names=(part.world.name, judge_name(part.reward_model)),
            horizon=event.config.evaluation_horizon, temperature=part.temperature, seed=event.config.seed,
            iteration=event.step, batch_size=event.config.loop.imagine_batch_size, again=event.config.loop.rescore,
            processes=processes, leads_below=leads_below,
        )  # fmt: skip
    if processes.leads:
        note(event.folder, Payment("evaluation", event.step, result.cost_usd))
        done = EvaluationDone(
            event.config, event.folder, event.step, parts, event.label, part.world.name, rollouts, rewards
        )
        tell("gymnast_evaluation_done", done)
        # Written last: it says that everything else is there.
        write_json(folder / f"{event.label}.json", asdict(replace(result, measured_with=_measured_with(part))))


def _measured_with(part: EvaluationConfig) -> MeasuredWith:
    """The components that an evaluation is made with, to be compared with those of other runs."""
    section = asdict(part)
    parts = {key: section[key] for key in MEASURING_PARTS}
    free = [key for key in free_arguments(part) if key.partition(".")[0] in parts]
    return MeasuredWith(parts, tuple(free))


def _summary(folder: Path, label: str) -> dict[str, Any]:
    found, before = _read(folder / f"{label}.json"), _read(folder / "before.json")
    assert found is not None
    keys = ("rate", "interval", "n", "unscored", "world", "reward_model", "reward_kind")
    summary = {key: getattr(found, key) for key in keys}
    if label != "before" and before is not None:
        summary["difference"] = asdict(paired_difference(before, found))
    return summary


def _read(path: Path) -> Evaluation | None:
    """The evaluation in a file; None if there is none. Raises `DataError` if it is damaged."""
    if not path.exists():
        return None
    try:
        return evaluation_from_json(read_object(path, allow_nan=True).values)
    except (DataError, ValueError, KeyError, TypeError) as error:
        remedy = "to evaluate again"
        if path.stem == "before":
            remedy = "to go on without: what a policy was before its training cannot be measured later"
        raise DataError(f"{path} is not an evaluation ({error}). Delete it {remedy}.") from error
