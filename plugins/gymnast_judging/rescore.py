"""`gymnast rescore`: the rollouts that a run kept, judged once more by the same reward model or another."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, ClassVar

from gymnast_core.config import ComponentConfig, parse_overrides
from gymnast_core.errors import ConfigError, DataError
from gymnast_core.interfaces import Parts
from gymnast_core.money import in_dollars, total_usd
from gymnast_core.runs.atomic import write_json
from gymnast_core.runs.progress import Progress
from gymnast_core.statistics import bootstrap_interval, mean_interval, score_interval, success_interval
from gymnast_core.types import Reward
from gymnast_judging.rows import RowFile
from gymnast_judging.scoring import Asked, ErrorLimit, built, judge_label, judged
from gymnast_judging.stored import Place, stored_places
from gymnast_judging.summary import mean_key


@dataclass(frozen=True)
class Rescored:
    """A row of results.jsonl: a kept rollout, its first judgement and its new one."""

    id: str
    """Its draw, its number there, and a digest of what happened in it."""
    task: str
    instruction: str
    first_value: float | None
    """What the run's own judge said; None when it could not judge."""
    first_error: str | None
    value: float | None
    partial: float | None
    error: str | None
    rationale: str
    cost_usd: float | None
    first_kind: str = "success"
    """What `first_value` is: success in [0, 1], or a "score"."""
    reward_kind: str = "success"
    """What `value` is."""


@dataclass(frozen=True)
class _Overrides:
    """What may be overridden."""

    kind: ClassVar[str] = "rescore"
    reward_model: ComponentConfig


def rescore_command(
    run: Path, overrides: Sequence[str] = (), *, all_rollouts: bool = False, max_error_rate: float = 0.5
) -> list[dict[str, Any]]:
    """Judge what `run` kept; returns the summary of each judge's folder in RUN/rescored."""
    if not 0.0 <= max_error_rate <= 1.0:  # nor NaN
        raise ConfigError(f"--max-error-rate is {max_error_rate}; it must lie in [0, 1].")
    places = stored_places(run, all_rollouts=all_rollouts)
    if not places:
        kind = "no rollouts" if all_rollouts else "no rollouts that could not be judged (--all takes the others, too)"
        raise DataError(f"{run} keeps {kind}.")
    change = _change(overrides)
    by_judge: dict[str, tuple[ComponentConfig, list[Place]]] = {}
    for place in places:
        judge = _changed(place.judge, change)
        by_judge.setdefault(judge_label(judge), (judge, []))[1].append(place)
    again = shlex.join(["gymnast", "rescore", str(run), *(["--all"] if all_rollouts else []), *overrides])
    return [
        _rescore(run / "rescored" / label, judge, mine, max_error_rate, again)
        for label, (judge, mine) in by_judge.items()
    ]


def _rescore(
    folder: Path, part: ComponentConfig, places: Sequence[Place], max_error_rate: float, again: str
) -> dict[str, Any]:
    file = RowFile(folder / "results.jsonl", Rescored)
    done = {row.id for row in file.rows if row.error is None}
    limit = ErrorLimit(max_error_rate, part.name, again, judged=len(done))
    total = sum(len(place.ids) for place in places)
    missing = sum(id not in done for place in places for id in place.ids)
    if missing:
        with built(part, "reward_model", Parts()) as judge:
            judge.preflight(missing, max(place.frames for place in places))
            write_json(folder / "judge.json", asdict(part))
            with Progress(f"Rescoring with {part.name}", total, unit="rollout", start=total - missing) as progress:
                number = total - missing
                for asked, rewards in judged(judge, _batches(places, done), rescore=1):
                    answers = zip(asked.items, rewards, strict=True)
                    file.append([_row(item, reward, judge.kind) for item, reward in answers])
                    number += len(rewards)
                    progress.update(number, _numbers(file.rows))
                    limit.add(rewards)
    summary = {"output": str(folder), "reward_model": part.name, **summarise(file.rows, part.name)}
    write_json(folder / "summary.json", summary)
    return summary


@dataclass(frozen=True)
class Item:
    """A kept rollout, without its frames."""

    id: str
    task: str
    instruction: str
    first: Reward
    first_kind: str


def _batches(places: Sequence[Place], done: set[str]) -> Iterator[Asked[Item]]:
    for place in places:
        if done.issuperset(place.ids):
            continue
        rollouts, rewards = place.load()
        wanted = [i for i, id in enumerate(place.ids) if id not in done]
        yield Asked(
            [
                Item(place.ids[i], rollouts[i].task.id, rollouts[i].task.instruction, rewards[i], place.reward_kind)
                for i in wanted
            ],
            [rollouts[i] for i in wanted],
        )


def _row(item: Item, reward: Reward, kind: str) -> Rescored:
    return Rescored(
        id=item.id, task=item.task, instruction=item.instruction, first_value=item.first.value,
        first_error=item.first.error, value=reward.value, partial=reward.partial, error=reward.error,
        rationale=reward.rationale, cost_usd=reward.cost_usd, first_kind=item.first_kind, reward_kind=kind,
    )  # fmt: skip


def summarise(rows: Sequence[Rescored], judge: str) -> dict[str, Any]:
    """What the judge says, and its agreement with the first one on what both judged. The last row of each rollout
    counts. Success is what judges of success give; of one that gives scores it is a mean reward by that judge, which
    agrees with nothing but scores. Rollouts of a task, as those of a group, share their start: intervals are over tasks
    where tasks repeat."""
    latest = list({row.id: row for row in rows}.values())
    scored = [(row.task, row.value) for row in latest if row.value is not None]
    errors = [row.error for row in latest if row.error is not None]
    kinds = {row.reward_kind for row in latest}
    both = [
        Judged(row.task, row.first_value, row.value)
        for row in latest
        if row.first_value is not None and row.value is not None and row.first_kind == row.reward_kind
    ]
    return {
        "rollouts": len(latest),
        "scored": len(scored),
        "newly_scored": sum(row.first_value is None and row.value is not None for row in latest),
        "unscored": len(errors),
        "first_error": errors[0] if errors else None,
        **_mean(scored, judge, is_success=kinds <= {"success"}),
        "agreement": _agreement(both, is_success=kinds <= {"success"}) if both else None,
        "cost_usd": total_usd(row.cost_usd for row in rows),
    }


@dataclass(frozen=True)
class Judged:
    """A rollout that both judged."""

    task: str
    first: float
    now: float


def _mean(scored: Sequence[tuple[str, float]], judge: str, *, is_success: bool) -> dict[str, Any]:
    """Of values with their tasks."""
    key = "success" if is_success else mean_key(judge)
    if not scored:
        return {key: None}
    tasks, values = [task for task, _ in scored], [value for _, value in scored]
    interval = mean_interval(values, "success" if is_success else "score", tasks)
    return {key: {"mean": sum(values) / len(values), "interval": interval, "tasks": len(set(tasks))}}


def _agreement(both: Sequence[Judged], *, is_success: bool) -> dict[str, Any]:
    tasks, n = [one.task for one in both], len(both)
    same = [float(one.first == one.now) for one in both]
    differences = [one.now - one.first for one in both]
    return {
        "n": n,
        "tasks": len(set(tasks)),
        "same": sum(same) / n,
        "same_interval": success_interval(same, tasks),
        "mean_difference": sum(differences) / n,
        "mean_difference_interval": (
            bootstrap_interval(differences, tasks, bounds=(-1.0, 1.0))
            if is_success
            else score_interval(differences, tasks)
        ),
        "table": [
            {"first": first, "now": now, "n": len(list(found))}
            for (first, now), found in groupby(sorted((one.first, one.now) for one in both))
        ],
    }


def _numbers(rows: Sequence[Rescored]) -> dict[str, float | str]:
    latest = list({row.id: row for row in rows}.values())
    values = [row.value for row in latest if row.value is not None]
    name = "success" if all(row.reward_kind == "success" for row in latest) else "reward"
    cost = total_usd(row.cost_usd for row in rows)
    numbers = {name: sum(values) / max(len(values), 1), "unscored": len(latest) - len(values)}
    shown: dict[str, float | str] = {key: number for key, number in numbers.items() if number}
    return shown | ({"cost": in_dollars(cost)} if cost != 0 else {})


def _change(overrides: Sequence[str]) -> dict[str, Any]:
    strange = [item for item in overrides if item.partition("=")[0].split(".")[0] != "reward_model" or "=" not in item]
    if strange:
        raise ConfigError(
            f"{strange[0]!r} cannot be overridden here; reward_model=NAME and reward_model.args.KEY=VALUE can."
        )
    return parse_overrides(overrides, _Overrides).get("reward_model", {})


def _changed(judge: ComponentConfig, change: dict[str, Any]) -> ComponentConfig:
    """The judge with overrides merged in; another judge starts from its own defaults."""
    from omegaconf import OmegaConf

    name = change.get("name", judge.name)
    args = OmegaConf.merge(judge.args if name == judge.name else {}, change.get("args", {}))
    return ComponentConfig(name, OmegaConf.to_container(args))  # type: ignore[arg-type]
