"""Builds `report.html`: one file without network access that lets a reader judge a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import jinja2
import yaml

from gymnast_core.errors import DataError
from gymnast_core.reading import as_object, parse_json
from gymnast_core.runs.atomic import write_text
from gymnast_core.runs.results import Evaluation, Run, Scored, position, read_run
from gymnast_core.runs.spending import spent_usd
from gymnast_core.statistics import mean_interval
from gymnast_pages import claims
from gymnast_pages.facts import Facts, facts_of
from gymnast_pages.measure import SUCCESS
from gymnast_pages.state import state_of
from gymnast_pages.templates import templates
from gymnast_pages.wording import counted, duration, moment, number, percent
from gymnast_report.curves import charts, learned_measure, measure_of
from gymnast_report.gallery import phase_title, read_clips
from gymnast_report.group_view import group_views
from gymnast_report.groups import read_groups, weightiest
from gymnast_report.media import Room, by_phase, comparisons, during_training, embed
from gymnast_report.panel import commands, left_behind, panels
from gymnast_report.replay import agreements, audit_chart

EMBEDDED_BYTES = 3_900_000
"""Bytes of video and stills put into the page, a third larger in base64; the page stays below 6 MB."""
SHARE_OF_GROUPS = 0.4
"""Of these bytes, what the rollouts of groups side by side may take."""


@dataclass(frozen=True)
class Rate:
    """A mean with its 95 % interval; `value` is None when nothing was scored."""

    value: float | None
    interval: tuple[float, float] | None
    n: int
    unscored: int


def build_report(path: Path, *, summary: Mapping[str, Any] | None = None) -> Path:
    """Write `path/report.html` from the run folder `path` and return its path.

    `summary` replaces `summary.json`. Raises `DataError` if `path` is no run folder or damaged.
    """
    run = read_run(path)
    if summary is not None:
        run = replace(run, summary={**run.summary, **summary})
    html = _environment().get_template("report.html.j2").render(_context(run))
    target = path / "report.html"
    write_text(target, html)
    return target


def _context(run: Run) -> dict[str, Any]:
    columns = [evaluation for evaluation in run.evaluations.values() if not during_training(evaluation.label)]
    shown = run.evaluations.get("after") or run.evaluations.get("before") or next(iter(columns), None)
    steps = int(position(run.metrics[-1]) or 0) if run.metrics else 0
    return {
        "run": run,
        "state": state_of(run.path),
        "title": run.path.resolve().name,
        "headline": _headline(run, columns, steps),
        "facts": _facts(run, shown),
        "difference": run.difference if run.evaluations.get("after") else None,
        "measure": SUCCESS if shown is None else measure_of(shown),
        "measure_of": measure_of,
        "measure_success": SUCCESS,
        "columns": columns,
        "rows": _by_instruction(columns),
        "charts": charts(run),
        "alarms": _alarms(run.path / "alarms.jsonl"),
        "resumes": [resume for resume in run.resumes if resume["changes"]],
        "metric_names": list(dict.fromkeys(name for row in run.metrics for name in row)),
        "unscored": _total(run, "unscored"),
        "spent_usd": spent_usd(run.path),
        "versions": yaml.safe_dump(dict(run.versions), sort_keys=False),
        "steps": steps,
        "panels": panels(run.config),
        "left": left_behind(run),
        "commands": commands(run),
        "agreements": agreements(run.path),
        "audit_chart": audit_chart(run.path),
        **_films(run),
    }


def _films(run: Run) -> dict[str, Any]:
    """Videos and groups, as far as the page has room."""
    videos, groups = run.path / "videos", read_groups(run.path)
    learned, _ = learned_measure(run)
    of_groups = Room(int(SHARE_OF_GROUPS * EMBEDDED_BYTES))
    views = group_views(videos, groups, learned, of_groups)
    media = embed(read_clips(videos), videos, Room(EMBEDDED_BYTES - of_groups.taken))
    return {
        "comparisons": comparisons(media),
        "training": by_phase(media),
        "views": views,
        "weightiest": weightiest(groups),
        "last_groups": groups[-1] if groups else None,
        "learned": learned,
    }


@lru_cache(maxsize=1)
def _environment() -> jinja2.Environment:
    return templates(
        "gymnast_report", percent=percent, phase=phase_title, duration=duration, moment=moment, number=number
    )


def _headline(run: Run, columns: Sequence[Evaluation], steps: int) -> str:
    """What the run may claim."""
    before, after = run.evaluations.get("before"), run.evaluations.get("after")
    if before and after:
        found = run.difference
        change = None if found is None else claims.Change(found.mean, found.interval, found.n)
        return claims.change(measure_of(after), before.rate, after.rate, change)
    if before:
        name = "Task success" if measure_of(before).is_success else measure_of(before).title
        return f"{name} before training: {claims.rate(measure_of(before), before.rate, before.interval, before.n)}"
    if columns:
        shown = [(one.label, claims.rate(measure_of(one), one.rate, one.interval, one.n)) for one in columns]
        return ", ".join(f"{label}: {text}" for label, text in shown)
    if run.kind == "fit":
        return f"Supervised training, {counted(steps, 'step')}"
    return "No evaluation yet" if state_of(run.path).alive else "No evaluation"


def _facts(run: Run, shown: Evaluation | None) -> Facts:
    facts = facts_of(run.config)
    if shown is None:
        return facts
    n = counted(shown.n, "trial") + (f", {shown.unscored} more unscored" if shown.unscored else "")
    return facts.but(judge=shown.reward_model, world=shown.world, n=n)


def _rate(episodes: Sequence[Scored], kind: str) -> Rate:
    scored = [(episode.task, episode.value) for episode in episodes if episode.value is not None]
    if not scored:
        return Rate(None, None, 0, len(episodes))
    tasks, values = [task for task, _ in scored], [value for _, value in scored]
    interval = mean_interval(values, kind, tasks)
    return Rate(sum(values) / len(values), interval, len(values), len(episodes) - len(values))


def _by_instruction(columns: Sequence[Evaluation]) -> list[tuple[str, list[Rate]]]:
    instructions = sorted({episode.instruction for column in columns for episode in column.episodes})
    return [
        (
            text,
            [
                _rate([episode for episode in column.episodes if episode.instruction == text], column.reward_kind)
                for column in columns
            ],
        )
        for text in instructions
    ]


def _alarms(path: Path) -> list[dict[str, Any]]:
    """What went wrong with the rewards, and when that ended; a line that is being written is left out."""
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n")[:-1] if path.exists() else []
    try:
        return [
            as_object(parse_json(line, f"{path}, line {number}", allow_nan=True), f"{path}, line {number}").values
            for number, line in enumerate(lines, start=1)
        ]
    except DataError as error:
        raise DataError(f"{error} Restore or delete that file, then rebuild.") from error


def _total(run: Run, column: str) -> float | None:
    values = [row[column] for row in run.metrics if row.get(column) is not None]
    return sum(value for value in values if value is not None) if values else None
