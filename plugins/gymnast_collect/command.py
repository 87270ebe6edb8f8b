"""`gymnast collect`: config in, a folder with a recording out; resumable episode by episode."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gymnast_collect.actors import Casting
from gymnast_collect.config import CollectConfig, wanted
from gymnast_collect.record import EPISODES, Recorder, clean, finished_rows, has_begun, keeper, load_format
from gymnast_collect.stage import Stage
from gymnast_collect.takes import Take
from gymnast_collect.wanted import Attempt, Wanted
from gymnast_core.closing import close_all
from gymnast_core.config import load_config
from gymnast_core.devices import find_device
from gymnast_core.errors import ConfigError, GymnastError
from gymnast_core.interfaces import Parts, Policy
from gymnast_core.plugins.compose import registries
from gymnast_core.plugins.resuming import free_arguments
from gymnast_core.runs.atomic import write_json, write_text
from gymnast_core.runs.commands import resume_command
from gymnast_core.runs.folder import refuse_changes, run_folder
from gymnast_core.runs.progress import Progress
from gymnast_core.runs.versions import versions
from gymnast_core.signals import terminating
from gymnast_environment.environments import Environments

log = logging.getLogger(__name__)
FREE = ("hosting", "parallel", "attempts", "device", "max_error_rate")
"""Keys that change no episode; a resumed recording may be given others."""
_FEW = 5
"""Crashes from which on their share counts."""


class EnvironmentsFailing(GymnastError):
    """Too many attempts crashed; the recording stops and can be resumed."""


def collect_command(config: CollectConfig, *, resume: Path | None = None) -> dict[str, Any]:
    """Record or go on recording; returns what the command prints."""
    load_format(config)
    if resume is not None:
        stored = load_config(CollectConfig, str(resume / "config.yaml"))
        fixed = [key for key in vars(config) if key != "output"]
        refuse_changes(stored, config, fixed, [*FREE, *free_arguments(stored)])
    elif config.output is not None and has_begun(Path(config.output)):
        raise ConfigError(
            f"{config.output} holds a recording. Continue it with {resume_command('collect', config.output)}, or "
            "choose another folder with output=…"
        )
    began = time.monotonic()
    with terminating(), run_folder(config, "collect", resume) as (config, folder):
        if (folder / EPISODES).exists():
            clean(folder)
        else:
            write_text(folder / "versions.json", json.dumps(versions(), indent=1))
            _record(config, folder)
        summary = summarise(config, folder)
        if summary["success_of_attempts"] is None and config.keep == "all":
            log.warning(
                "No attempt says whether it succeeded: environments say nothing in info under view.success_key=%s. "
                "The episodes have no labels for a judge.", config.view.success_key,
            )  # fmt: skip
        write_json(folder / "summary.json", summary)
    return {"output": str(folder), "seconds": round(time.monotonic() - began, 1), **summary}


def _record(config: CollectConfig, folder: Path) -> None:
    recorder = Recorder(config, folder)
    plan = _plan(config)
    for row in recorder.rows:
        plan.decide(row["episode"] is not None)
    if plan.next is not None:
        with _policies(config) as policies, _environments(config) as environments:
            stage = Stage(config, environments, Casting(config, policies))
            try:
                _roll(config, plan, stage, recorder)
            finally:
                stage.clear()
    recorder.finish()


def _plan(config: CollectConfig) -> Wanted:
    families = []
    for family in config.environments:
        most = family.listed or 100 * wanted(family)
        families.append((family.label, wanted(family), min(most, config.attempts or most)))
    return Wanted.of(families, interleaved=config.order == "interleaved")


def _roll(config: CollectConfig, plan: Wanted, stage: Stage, recorder: Recorder) -> None:
    """Raises `DataError` where attempts run out, `EnvironmentsFailing` where too many crash."""
    keeps, before = keeper(config), len(recorder.rows)
    parallel = min(config.parallel or config.hosting.parallel, config.hosting.max_environments)
    finished: dict[Attempt, Take] = {}
    total = sum(wanted(family) for family in config.environments)
    with Progress("Collecting", total, unit="episode", start=_kept(recorder.rows)) as progress:
        while (due := plan.next) is not None:
            if due in finished:
                take = finished.pop(due)
                keep = keeps(take)
                recorder.add(take, keep)
                plan.decide(keep)
                _check_errors(recorder, before)
                progress.update(_kept(recorder.rows), _numbers(recorder.rows))
                continue
            plan.check()
            ahead = plan.ahead(4 * parallel, lambda attempt: keeps(finished[attempt]) if attempt in finished else None)
            new = [attempt for attempt in ahead if attempt not in finished and attempt not in stage.running]
            over = stage.begin(new[: max(parallel - stage.size, 0)])
            over += stage.advance(lambda attempt: plan.families[attempt[0]].kept < plan.families[attempt[0]].count)
            finished.update({take.attempt: take for take in over})


def _check_errors(recorder: Recorder, before: int) -> None:
    rows, limit = recorder.rows[before:], recorder.config.max_error_rate
    errors = [row["error"] for row in rows if "error" in row]
    if len(errors) >= _FEW and len(errors) > limit * len(rows):
        raise EnvironmentsFailing(
            f"{len(errors)} of {len(rows)} attempts crashed (limit max_error_rate={limit:g}). Last error: {errors[-1]} "
            f"When it works again: {resume_command('collect', recorder.folder)}"
        )


@contextmanager
def _environments(config: CollectConfig) -> Iterator[Environments]:
    environments = Environments(config.view, config.hosting, constant_start=config.constant_start)
    try:
        yield environments
    finally:
        environments.close()


@contextmanager
def _policies(config: CollectConfig) -> Iterator[Mapping[int, Policy]]:
    """The policies by the number of their actor; actors with equal policies share one. Closed at the end."""
    built: dict[str, Policy] = {}
    found: dict[int, Policy] = {}
    try:
        for number, actor in enumerate(config.all_actors()):
            if actor.policy is None:
                continue
            place = "actor" if config.actor is not None else f"actors[{number}]"
            key = json.dumps([actor.policy.name, actor.policy.args], sort_keys=True, default=str)
            if key not in built:
                part = actor.policy
                built[key] = registries().policies.build(part.name, part.args, key=f"{place}.policy")
                built[key].to(find_device(config.device)).eval()
                built[key].attach(Parts(policy=built[key], config=config))
            found[number] = built[key]
        yield found
    finally:
        close_all(built.values())


def summarise(config: CollectConfig, folder: Path) -> dict[str, Any]:
    """What the finished recording holds."""
    rows = finished_rows(folder)
    kept = [row for row in rows if row["episode"] is not None]
    groups = {
        key: {label: _group([row for row in rows if row.get(key) == label]) for label in _labels(rows, key)}
        for key in ("family", "actor")
    }
    return {
        "episodes": str(folder / EPISODES),
        "format": config.to,
        "frames": sum(row["actions"] + 1 for row in kept),
        "fps": kept[0]["fps"],
        "fps_from": kept[0]["fps_from"],
        **_group(rows),
        "families": groups["family"],
        "actors": groups["actor"],
    }


def _labels(rows: Sequence[Mapping[str, Any]], key: str) -> list[str]:
    return list(dict.fromkeys(row[key] for row in rows if key in row))


def _group(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    known = [row["success"] for row in rows if row["success"] is not None]
    return {
        "kept": _kept(rows),
        "attempts": len(rows),
        "crashed": sum("error" in row for row in rows),
        "success_of_attempts": round(sum(known) / len(known), 4) if known else None,
    }


def _kept(rows: Sequence[Mapping[str, Any]]) -> int:
    return sum(row["episode"] is not None for row in rows)


def _numbers(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    known = [row["success"] for row in rows if row["success"] is not None]
    success = {"success": sum(known) / len(known)} if known else {}
    return {"attempts": len(rows), **success}
